use std::fs;
use std::io;
use std::sync::Arc;

use backup_core::{
    ByteStream, Error, ErrorKind, Occupancy, PartReader, Publication, RestoreOptions, Result,
    StreamReader, Target, async_trait, blocking, free_space,
};

use crate::counts::show;
use crate::place::{Place, Staged};
use crate::unpack::unpack;
use crate::{Folder, KIND, PART};

#[async_trait]
impl Target for Folder {
    fn kind(&self) -> &str {
        KIND
    }

    async fn occupancy(&self) -> Result<Occupancy> {
        let folder = self.clone();
        blocking(move || folder.look()).await
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        let path = self.path.clone();
        blocking(move || Ok(free_space(&path))).await
    }

    fn publishes_atomically(&self) -> bool {
        true
    }

    /// Unpacks into a hidden folder beside the target, syncs the file system, then renames. What
    /// was there before is deleted when all is done, and refused to be replaced where something is
    /// mounted in it. A process that is killed leaves a folder `.lifebelt-*` beside the target.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        options.no_extra(KIND)?;
        self.unpack(parts.open(PART).await?, options.replace).await
    }
}

impl Folder {
    /// A restore without a backup, for the fuzz target.
    #[doc(hidden)]
    pub async fn unpack(&self, data: ByteStream, replace: bool) -> Result<()> {
        let folder = self.clone();
        let old = data
            .consume(move |data, publication| folder.unpack_blocking(data, publication, replace))
            .await?;
        // Not waited for: the new folder is in its place, and whoever went away now would leave
        // it there without having been told. A runtime that ends waits for its threads.
        drop(tokio::task::spawn_blocking(move || drop(old)));
        Ok(())
    }

    /// Returns what holds the replaced folder, to be deleted by whoever drops it last.
    fn unpack_blocking(
        &self,
        data: &mut StreamReader,
        publication: &Publication,
        replace: bool,
    ) -> Result<Arc<Staged>> {
        let failed = |e| self.failed("restore into", e);
        let place = Place::of(&self.path).map_err(failed)?;
        if place.is_mount_point().map_err(failed)? {
            let message = format!("{self} is a mount point: name a folder within it");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let staged = Arc::new(Staged::beside(&place).map_err(failed)?);
        let root = staged.open().map_err(failed)?;
        let file_system = root.try_clone().map_err(failed)?;
        unpack(data, root.into(), self.refuse_outside_links)?;
        sync(&file_system).map_err(failed)?;
        if replace && let Some(mount) = place.mounted_below().map_err(failed)? {
            let message = format!(
                "{} is mounted in {self}, and would be emptied with what is replaced: unmount it first",
                mount.display()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }

        let taken = Arc::new(std::sync::OnceLock::new());
        let undo = {
            let (staged, taken) = (Arc::clone(&staged), Arc::clone(&taken));
            move || {
                let Some(taken) = taken.get() else { return };
                if let Err(error) = staged.withdraw(*taken) {
                    tracing::warn!(%error, "an abandoned restore stays in its place");
                }
            }
        };
        publication.publish(
            || {
                let how = staged.publish(replace).map_err(|e| self.not_published(e))?;
                let _ = taken.set(how);
                Ok(())
            },
            undo,
        )?;
        place.sync().map_err(failed)?;
        Ok(staged)
    }

    fn not_published(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
                Error::new(ErrorKind::Refused, format!("{self} is not empty any more"))
            }
            io::ErrorKind::ResourceBusy => {
                let message = format!("{self} is a mount point: name a folder within it");
                Error::new(ErrorKind::Unsupported, message).with_source(error)
            }
            _ => self.failed("restore into", error),
        }
    }

    fn look(&self) -> Result<Occupancy> {
        let failed = |e| self.failed("look into", e);
        match fs::metadata(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // A link that leads nowhere would be replaced too.
                return match fs::symlink_metadata(&self.path) {
                    Ok(_) => Ok(Occupancy::Holds("a broken link".into())),
                    Err(_) => Ok(Occupancy::Empty),
                };
            }
            Err(e) => return Err(failed(e)),
            Ok(known) if !known.is_dir() => {
                return Ok(Occupancy::Holds(format!("a file of {} bytes", known.len())));
            }
            Ok(_) => {}
        }
        let mut names = Vec::new();
        let mut count: u64 = 0;
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            count += 1;
            if names.len() < 3 {
                names.push(show(name.as_encoded_bytes()));
            }
        }
        let more = if count > 3 { ", …" } else { "" };
        match count {
            0 => Ok(Occupancy::Empty),
            1 => Ok(Occupancy::Holds(format!("1 entry: {}", names.join(", ")))),
            n => Ok(Occupancy::Holds(format!(
                "{n} entries: {}{more}",
                names.join(", ")
            ))),
        }
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        Error::io(format!("{verb} {self}"), error)
    }
}

/// One call for all of it: a sync of each of 50,000 files would take minutes. Linux tells of
/// failed writes since the folder was opened.
fn sync(folder: &fs::File) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(folder)?;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        rustix::fs::sync();
    }
    Ok(())
}
