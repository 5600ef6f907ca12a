use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::{
    ByteStream, Error, ErrorKind, Occupancy, PartReader, Publication, RestoreOptions, Result,
    StreamReader, Target, async_trait, free_space,
};
use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;
use serde::Deserialize;

use crate::KIND;
use crate::target::only_part;

/// A file that receives the plain bytes of a part, all of them or none.
///
/// `Display` prints the path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTarget {
    path: PathBuf,
    part: Option<String>,
}

impl FileTarget {
    /// Writes the only part of the backup to `path`, readable by its owner only. The folder must
    /// exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            part: None,
        }
    }

    /// Writes this part, of a backup with several.
    #[must_use]
    pub fn part(mut self, name: impl Into<String>) -> Self {
        self.part = Some(name.into());
        self
    }

    pub(crate) async fn write(&self, data: ByteStream, replace: bool) -> Result<()> {
        let target = self.clone();
        data.consume(move |data, publication| target.write_blocking(data, publication, replace))
            .await
    }

    fn write_blocking(
        &self,
        data: &mut StreamReader,
        publication: &Publication,
        replace: bool,
    ) -> Result<()> {
        let failed = |e| self.failed("write", e);
        // What a link points to is replaced, not the link.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let mut temp = Temp::create(parent).map_err(failed)?;
        while let Some(chunk) = data.next_chunk()? {
            temp.file.write_all(&chunk).map_err(failed)?;
        }
        temp.file.sync_all().map_err(failed)?;
        let folder = File::open(parent).map_err(failed)?;
        let undo = {
            let path = path.clone();
            move || {
                // What was replaced cannot come back.
                if !replace {
                    let _ = fs::remove_file(path);
                }
            }
        };
        publication.publish(|| temp.publish(&path, replace).map_err(failed), undo)?;
        folder.sync_all().map_err(failed)
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        Error::io(format!("{verb} {self}"), error)
    }
}

impl fmt::Display for FileTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

#[async_trait]
impl Target for FileTarget {
    fn kind(&self) -> &str {
        KIND
    }

    async fn occupancy(&self) -> Result<Occupancy> {
        match fs::metadata(&self.path) {
            Ok(known) if known.is_file() => {
                Ok(Occupancy::Holds(format!("a file of {} bytes", known.len())))
            }
            Ok(_) => Err(Error::new(
                ErrorKind::Invalid,
                format!("{self} is no regular file"),
            )),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Occupancy::Empty),
            Err(e) => Err(self.failed("look at", e)),
        }
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        Ok(free_space(&self.path))
    }

    fn publishes_atomically(&self) -> bool {
        true
    }

    /// Writes beside the file, syncs and renames. What a killed process leaves behind is a hidden
    /// file `.lifebelt-*` in the same folder.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        options.no_extra(KIND)?;
        let part = only_part(self.part.as_deref(), parts)?;
        self.write(parts.open(&part).await?, options.replace).await
    }
}

/// A file that vanishes unless it is published.
struct Temp {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Temp {
    fn create(folder: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!(".lifebelt-{}-{count}", std::process::id()));
            match File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
            {
                Ok(file) => {
                    return Ok(Self {
                        path,
                        file,
                        published: false,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn publish(&mut self, path: &Path, replace: bool) -> io::Result<()> {
        if replace {
            fs::rename(&self.path, path)?;
            self.published = true;
            return Ok(());
        }
        match renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            // The file system does not know the flag; a hard link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                // Dropping removes the other name.
                Ok(linkat(CWD, &self.path, CWD, path, AtFlags::empty())?)
            }
            done => {
                done?;
                self.published = true;
                Ok(())
            }
        }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}
