use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::{
    Error, ErrorKind, Occupancy, PartReader, Publication, RestoreOptions, Result, StreamReader,
    Target, async_trait,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::append_only::AppendOnly;
use crate::capture::{told, walked};
use crate::owner::refuse_running;
use crate::rdb::Walker;
use crate::{DUMP, KIND, RdbFile};

#[async_trait]
impl Target for RdbFile {
    fn kind(&self) -> &str {
        KIND
    }

    /// Empty: neither the file nor an append-only one beside it.
    async fn occupancy(&self) -> Result<Occupancy> {
        let mut held = Vec::new();
        match fs::metadata(&self.path) {
            Ok(known) if known.is_file() => held.push(format!("a file of {} bytes", known.len())),
            Ok(_) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("{self} is no regular file: write the path of a dump.rdb"),
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(self.failed("look at", e)),
        }
        if AppendOnly::of(self.folder(), false)?.is_some_and(|known| known.exists()) {
            held.push("an append-only file".to_owned());
        }
        Ok(match held.is_empty() {
            true => Occupancy::Empty,
            false => Occupancy::Holds(held.join(" and ")),
        })
    }

    fn publishes_atomically(&self) -> bool {
        true
    }

    /// Writes beside the file, walks through it meanwhile, syncs and renames. It gets the owner of
    /// its folder.
    ///
    /// Refused: a folder in which a server runs, and one with the append-only file of a server
    /// before 7.0, which would be loaded instead.
    ///
    /// Options: `part`, as the setter of the same name. What a killed process leaves behind is a
    /// hidden file or folder `.lifebelt-*`.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        if options.extra.contains_key("check") {
            let what = "a dump.rdb is checked when it is written; `check` is for a server";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let how = self.restoring.with(options)?;
        let part = how.part.as_deref().unwrap_or(DUMP);
        refuse_running(self.folder())?;
        let append_only = AppendOnly::of(self.folder(), self.append_only)?;
        let (bytes, tell) = walked(parts.open(part).await?, Walker::new(), true);
        let (target, replace) = (self.clone(), options.replace);
        let work = move |data: &mut StreamReader, publication: &Publication| {
            target.write(data, publication, append_only, replace)
        };
        bytes.consume(work).await?;
        let (summary, ()) = told(tell)?;
        if !self.append_only {
            tracing::info!(file = %self, version = %summary.version, "restored: start its server with `appendonly no`, and set it to `yes` when it runs");
        }
        Ok(())
    }
}

impl RdbFile {
    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        Error::io(format!("{verb} {self}"), error)
    }

    fn write(
        &self,
        data: &mut StreamReader,
        publication: &Publication,
        append_only: Option<AppendOnly>,
        replace: bool,
    ) -> Result<()> {
        let failed = |e| self.failed("write", e);
        let folder = self.folder();
        let temp = Temp::new(folder);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temp.0)
            .map_err(failed)?;
        while let Some(chunk) = data.next_chunk()? {
            file.write_all(&chunk).map_err(failed)?;
        }
        let owner = fs::metadata(folder).map_err(failed)?;
        own(&temp.0, &owner);
        file.sync_all().map_err(failed)?;
        let staged = Temp::new(folder);
        if let Some(append_only) = &append_only {
            append_only
                .stage(&staged.0, &temp.0, &owner)
                .map_err(failed)?;
        }
        // It took a while.
        refuse_running(folder)?;
        let undo = {
            let (path, append_only) = (self.path.clone(), append_only.clone());
            move || {
                // What was replaced cannot come back.
                if !replace {
                    let _ = fs::remove_file(path);
                    if let Some(made) = append_only {
                        let _ = fs::remove_dir_all(made.folder);
                    }
                }
            }
        };
        let make_visible = || {
            if let Some(append_only) = &append_only {
                append_only.swap(&staged.0)?;
            }
            let renamed = match replace {
                true => fs::rename(&temp.0, &self.path),
                false => put(&temp.0, &self.path),
            };
            if renamed.is_err()
                && let Some(append_only) = &append_only
            {
                append_only.swap(&staged.0)?;
            }
            renamed
        };
        publication.publish(|| make_visible().map_err(failed), undo)?;
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
    }
}

/// Renames, and never over a file that is there.
fn put(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // The file system does not know the flag; a hard link never replaces either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::hard_link(from, to),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file to whoever owns its folder: the server runs as somebody. Where we may not, we are
/// that somebody, or the server will say what it lacks.
pub(crate) fn own(path: &Path, owner: &fs::Metadata) {
    let _ = chown(path, Some(owner.uid()), Some(owner.gid()));
}

/// A file or folder that vanishes, under whatever name it has then.
struct Temp(PathBuf);

impl Temp {
    fn new(folder: &Path) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(folder.join(format!(".lifebelt-{}-{count}", std::process::id())))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_dir_all(&self.0);
    }
}
