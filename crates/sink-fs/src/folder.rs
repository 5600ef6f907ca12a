//! Folders by descriptor: no step of a path is ever resolved through a symbolic link.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use backup_core::Key;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, openat, unlinkat};
use rustix::io::{Errno, retry_on_intr};

/// How a folder is opened: never through a link, never inherited by a child.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

pub(crate) const PRIVATE_FOLDER: Mode = Mode::RWXU;

/// An open folder.
pub(crate) struct Folder(pub(crate) OwnedFd);

impl Folder {
    /// The root, which may be reached through a link.
    pub(crate) fn open_root(path: &Path) -> io::Result<Self> {
        Ok(Self(retry_on_intr(|| {
            openat(CWD, path, FOLDER, Mode::empty())
        })?))
    }

    /// The root, created with its parents where it is missing, and durably so.
    pub(crate) fn create_root(path: &Path) -> io::Result<Self> {
        match Self::open_root(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let absolute = std::path::absolute(path)?;
        let mut missing: Vec<PathBuf> = Vec::new();
        for folder in absolute.ancestors() {
            if fs::symlink_metadata(folder).is_ok() {
                break;
            }
            missing.push(folder.to_owned());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&absolute)?;
        for created in &missing {
            if let Some(parent) = created.parent() {
                Self::open_root(parent)?.sync()?;
            }
        }
        Self::open_root(path)
    }

    pub(crate) fn open(&self, name: &str) -> io::Result<Self> {
        let flags = FOLDER | OFlags::NOFOLLOW;
        Ok(Self(retry_on_intr(|| {
            openat(&self.0, name, flags, Mode::empty())
        })?))
    }

    /// Opens the folder `name`, and creates it where it is missing.
    pub(crate) fn ensure(&self, name: &str) -> io::Result<Self> {
        match rustix::fs::mkdirat(&self.0, name, PRIVATE_FOLDER) {
            Ok(()) | Err(Errno::EXIST) => self.open(name),
            Err(e) => Err(e.into()),
        }
    }

    /// The folder that holds `key`.
    pub(crate) fn parent_of(&self, key: &Key) -> io::Result<Self> {
        let mut folder = self.reopen()?;
        for segment in parents(key) {
            folder = folder.open(segment)?;
        }
        Ok(folder)
    }

    /// The folders from this one down to the one that holds `key`, created where missing.
    pub(crate) fn ensure_parents_of(&self, key: &Key) -> io::Result<Vec<Self>> {
        let mut chain = vec![self.reopen()?];
        for segment in parents(key) {
            let next = chain.last().unwrap_or(self).ensure(segment)?;
            chain.push(next);
        }
        Ok(chain)
    }

    fn reopen(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Makes the entries of this folder durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::fsync(&self.0)) {
            // A file system that cannot sync folders has nothing more to offer.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Moves `from` in `folder` to `to` in this one unless something is there.
    pub(crate) fn adopt(&self, folder: &Self, from: &str, to: &str) -> io::Result<()> {
        match rustix::fs::renameat_with(&folder.0, from, &self.0, to, RenameFlags::NOREPLACE) {
            // The file system does not know the flag; a hard link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(&folder.0, from, &self.0, to, AtFlags::empty())?;
                unlinkat(&folder.0, from, AtFlags::empty())?;
                Ok(())
            }
            done => Ok(done?),
        }
    }

    pub(crate) fn stat(&self, name: impl rustix::path::Arg) -> io::Result<rustix::fs::Stat> {
        Ok(rustix::fs::statat(
            &self.0,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Opens the file `name` for reading; a FIFO in its place cannot make it wait.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(retry_on_intr(|| openat(&self.0, name, flags, Mode::empty()))?.into())
    }

    /// Removes `key` below this root and the folders that it leaves empty. Missing: `Ok`.
    ///
    /// A put that has just opened one of those folders finds it gone and makes it again.
    pub(crate) fn remove(&self, key: &Key) -> io::Result<()> {
        let mut chain = vec![self.reopen()?];
        for segment in parents(key) {
            match chain.last().unwrap_or(self).open(segment) {
                Ok(next) => chain.push(next),
                Err(e) if is_absent(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        let Some(folder) = chain.pop() else {
            return Ok(());
        };
        match unlinkat(&folder.0, key.name(), AtFlags::empty()) {
            Ok(()) => folder.sync()?,
            // A folder is no object.
            Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) if !folder.holds_file(key.name()) => {
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
        let mut names: Vec<&str> = parents(key).collect();
        while let (Some(parent), Some(name)) = (chain.pop(), names.pop()) {
            // Not empty, most of the time.
            if unlinkat(&parent.0, name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
            parent.sync()?;
        }
        Ok(())
    }

    fn holds_file(&self, name: &str) -> bool {
        use rustix::fs::FileType;
        self.stat(name)
            .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) != FileType::Directory)
    }
}

/// Whether `error` says that there is no such object: a parent that is itself an object counts.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn parents(key: &Key) -> impl Iterator<Item = &str> {
    let all = key.as_str();
    let folders = all.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').filter(|segment| !segment.is_empty())
}
