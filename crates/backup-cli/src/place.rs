//! Where a restore goes, and what else is there.

use std::path::{Component, Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, Target};

use crate::config::Options;
use crate::config::words::nearest;
use crate::context::Context;

impl Context<'_> {
    /// What stands behind `--to`: a name from `[targets]`, or a place for this kind of backup.
    pub(crate) fn target(&self, to: &str, kind: &str) -> Result<Box<dyn Target>> {
        let targets = &self.loaded.config.targets;
        if let Some(options) = targets.get(to) {
            return self.registry.make_target(options);
        }
        let known: Vec<&String> = targets.keys().collect();
        if !to.contains('/')
            && !Path::new(to).exists()
            && let Some(near) = nearest(to, &known)
        {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("no target is called {to:?}; did you mean {near:?}? A path is \"./{to}\""),
            ));
        }
        self.registry.make_target(&Options::place(kind, to))
    }

    /// Nobody restores over backups.
    pub(crate) fn refuse_sink(&self, target: &dyn Target) -> Result<()> {
        let name = target.to_string();
        for (sink, options) in &self.loaded.config.sinks {
            if place_of(options).is_some_and(|place| overlap(&place, &name)) {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!("{name} is where sink `{sink}` keeps backups; restore elsewhere"),
                ));
            }
        }
        Ok(())
    }

    /// Whether restoring into `target` asks for `--force` and its name: on a production host, and
    /// wherever a job reads its data.
    pub(crate) fn is_production(&self, target: &dyn Target) -> bool {
        let name = target.to_string();
        let is_source = |options: &Options| {
            // As the target itself would call it: a URL without its password. A table with pieces
            // of a URL is one for the target too.
            let place = || {
                self.registry
                    .make_target(&Options::place(options.kind(), &place_of(options)?))
                    .ok()
            };
            let source = self.registry.make_target(options).ok().or_else(place)?;
            Some(source.kind() == target.kind() && overlap(&source.to_string(), &name))
        };
        let mut jobs = self.loaded.config.jobs.values();
        self.loaded.is_production() || jobs.any(|job| is_source(&job.source).unwrap_or(false))
    }
}

/// The `url` or `path` of a source or sink.
fn place_of(options: &Options) -> Option<String> {
    match options.text("url") {
        Some(url) => Some(url.to_owned()),
        None => Some(options.resolve(options.text("path")?).to_str()?.to_owned()),
    }
}

/// The same name, or two paths of which one is inside the other.
fn overlap(a: &str, b: &str) -> bool {
    if a.contains("://") || b.contains("://") {
        return a == b;
    }
    let (a, b) = (real(Path::new(a)), real(Path::new(b)));
    a.starts_with(&b) || b.starts_with(&a)
}

/// Absolute, without links as far as it exists, and without `..`.
pub(crate) fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = path
        .ancestors()
        .find_map(|up| Some((up, up.canonicalize().ok()?)));
    let (mut real, rest) = match known {
        Some((up, real)) => (real, path.strip_prefix(up).unwrap_or(&path)),
        None => (PathBuf::new(), path.as_path()),
    };
    for component in rest.components() {
        match component {
            Component::ParentDir => drop(real.pop()),
            other => real.push(other),
        }
    }
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_overlaps_what_is_inside_and_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        assert!(overlap(&text(&data), &text(&data.join("new/deep"))));
        assert!(overlap(&text(&data), &text(dir.path())));
        assert!(
            overlap(&text(&data), &text(&link.join("x"))),
            "through a link"
        );
        assert!(!overlap(&text(&data), &text(&dir.path().join("data-2"))));
    }

    #[test]
    fn urls_are_compared_whole() {
        assert!(overlap("postgres://db/orders", "postgres://db/orders"));
        assert!(!overlap("postgres://db/orders", "postgres://db/orders2"));
    }
}
