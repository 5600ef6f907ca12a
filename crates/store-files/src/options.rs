use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// A folder to back up.
///
/// In configuration: `{ path = "/srv/uploads", exclude = ["*.tmp"], one_file_system = true }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
    #[serde(default)]
    pub(crate) one_file_system: bool,
}

impl Files {
    /// Everything in the folder `path`, which may be reached through a link.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            exclude: Vec::new(),
            one_file_system: false,
        }
    }

    /// Leaves out what matches, folders with all that is in them. `*` and `?` stand for anything
    /// but `/`, `**` for anything. A pattern without `/` is compared with the name alone
    /// (`*.tmp`), others with the whole path below the folder (`cache/**`).
    #[must_use]
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push(pattern.into());
        self
    }

    /// Whether to leave out what other file systems hold: their mount points come back empty.
    #[must_use]
    pub fn one_file_system(mut self, only: bool) -> Self {
        self.one_file_system = only;
        self
    }
}

/// A folder to restore into.
///
/// `Display` prints the path: what a caller repeats to overwrite it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) refuse_outside_links: bool,
}

impl Folder {
    /// The folder `path`, missing or empty unless it is to be replaced. No mount point: it could
    /// not be replaced in one step.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            refuse_outside_links: false,
        }
    }

    /// Whether an archive with a symbolic link that leads out of the folder is refused. Off by
    /// default: such links were in the folder that was backed up (`current -> /srv/releases/5`),
    /// and a restore writes through none.
    #[must_use]
    pub fn refuse_outside_links(mut self, refuse: bool) -> Self {
        self.refuse_outside_links = refuse;
        self
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_says_what_the_setters_say() {
        let text = "path = '/srv'\nexclude = ['*.tmp', 'a/**']\none_file_system = true";
        let read: Files = toml::from_str(text).unwrap();
        let built = Files::new("/srv")
            .exclude("*.tmp")
            .exclude("a/**")
            .one_file_system(true);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        let read: Folder = toml::from_str("path = '/srv'\nrefuse_outside_links = true").unwrap();
        let built = Folder::new("/srv").refuse_outside_links(true);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        assert!(toml::from_str::<Files>("path = '/srv'\nfollow = true").is_err());
    }
}
