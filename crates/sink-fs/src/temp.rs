//! Files that are not objects yet.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use backup_core::Swept;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

use crate::folder::Folder;

/// Holds what is being written. No key can name it: segments never begin with a dot.
const NAME: &str = ".tmp";

/// A file that vanishes unless it is published.
///
/// It is locked (`flock`) while it is written: a sweep leaves it alone, and the lock of a process
/// that was killed is gone with it.
pub(crate) struct Temp {
    folder: Folder,
    name: String,
    pub(crate) file: File,
    published: bool,
}

impl Temp {
    /// `like` tells whoever finds it what it was going to be.
    pub(crate) fn create(root: &Folder, like: &str) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let folder = root.ensure(NAME)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{like}.{}-{count}", std::process::id());
            let file: File =
                match retry_on_intr(|| openat(&folder.0, &name, flags, Mode::RUSR | Mode::WUSR)) {
                    Ok(fd) => fd.into(),
                    // Left behind by a process of this number, or made by another machine's.
                    Err(Errno::EXIST) => continue,
                    Err(e) => return Err(e.into()),
                };
            // Where there are no locks, sweep goes by age alone.
            let _ = file.try_lock();
            let swept_meanwhile = file.metadata()?.nlink() == 0;
            if !swept_meanwhile {
                return Ok(Self {
                    folder,
                    name,
                    file,
                    published: false,
                });
            }
        }
    }

    /// Gives it its name in `folder`, which must be free.
    pub(crate) fn publish(&mut self, folder: &Folder, name: &str) -> io::Result<()> {
        folder.adopt(&self.folder, &self.name, name)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.published {
            // What stays behind is found by a sweep.
            let _ = unlinkat(&self.folder.0, &self.name, AtFlags::empty());
        }
    }
}

/// A file without a lock, where locks do not work, counts as in use for so long.
const UNLOCKABLE: Duration = Duration::from_secs(24 * 60 * 60);

/// Removes what is not in use and was last written `older_than` before `now`.
pub(crate) fn sweep(root: &Folder, older_than: Duration, now: SystemTime) -> io::Result<Swept> {
    let folder = match root.open(NAME) {
        Ok(folder) => folder,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Swept::default()),
        Err(e) => return Err(e),
    };
    let mut swept = Swept::default();
    for entry in Dir::read_from(&folder.0)? {
        let entry = entry?;
        let name = entry.file_name();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = match retry_on_intr(|| openat(&folder.0, name, flags, Mode::empty())) {
            Ok(fd) => fd.into(),
            // Published or removed meanwhile, or no file of ours.
            Err(Errno::NOENT | Errno::LOOP) => continue,
            Err(e) => return Err(e.into()),
        };
        let known = file.metadata()?;
        if !known.is_file() {
            continue;
        }
        // A time in the future is age zero.
        let age = now.duration_since(known.modified()?).unwrap_or_default();
        let needed = match file.try_lock() {
            Ok(()) => older_than,
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(_)) => older_than.max(UNLOCKABLE),
        };
        if age < needed || file.metadata()?.nlink() == 0 {
            continue;
        }
        match unlinkat(&folder.0, name, AtFlags::empty()) {
            Ok(()) => {
                swept += Swept {
                    objects: 1,
                    bytes: known.len(),
                }
            }
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(swept)
}
