//! Putting one folder in the place of another in a single step.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// A path with a name and an existing folder around it, links resolved.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    parent: PathBuf,
    path: PathBuf,
}

impl Place {
    /// Resolves `path`; creates what is missing of the folders around it.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(e) if e.kind() == io::ErrorKind::NotFound => std::path::absolute(path)?,
            Err(e) => return Err(e),
        };
        let Some(parent) = path.parent().filter(|_| path.file_name().is_some()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a name within a folder",
            ));
        };
        fs::create_dir_all(parent)?;
        Ok(Self {
            parent: parent.to_owned(),
            path,
        })
    }

    /// Whether something else is mounted here, as far as that can be seen.
    pub(crate) fn is_mount_point(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(known) => Ok(known.dev() != fs::symlink_metadata(&self.parent)?.dev()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Something that is mounted below: whoever deleted what is there now would delete in that too.
    pub(crate) fn mounted_below(&self) -> io::Result<Option<PathBuf>> {
        let mounts = match fs::read("/proc/self/mountinfo") {
            Ok(mounts) => mounts,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        // The fifth field (`proc_pid_mountinfo(5)`); a space in it is `\040`.
        let lines = mounts.split(|byte| *byte == b'\n');
        let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
        let mut paths = points.map(|point| PathBuf::from(OsString::from_vec(unescaped(point))));
        Ok(paths.find(|path| *path != self.path && path.starts_with(&self.path)))
    }

    /// Makes the last rename durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        File::open(&self.parent)?.sync_all()
    }
}

/// A hidden folder beside a place; removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct Staged {
    place: Place,
    path: PathBuf,
}

/// How a place was taken, and so how to give it back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken {
    /// Nothing was there, or an empty folder.
    Free { empty_folder: bool },
    /// What was there is now where the new folder was.
    Exchanged,
}

impl Staged {
    pub(crate) fn beside(place: &Place) -> io::Result<Self> {
        loop {
            let path = hidden(place);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    return Ok(Self {
                        place: place.clone(),
                        path,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Takes the place. Unless `replace`, it must be free or an empty folder.
    pub(crate) fn publish(&self, replace: bool) -> io::Result<Taken> {
        let there = fs::symlink_metadata(&self.place.path).is_ok();
        if replace && there {
            exchange(&self.path, &self.place)?;
            return Ok(Taken::Exchanged);
        }
        // Fails if something came to be in it meanwhile.
        fs::rename(&self.path, &self.place.path)?;
        Ok(Taken::Free {
            empty_folder: there,
        })
    }

    /// Gives the place back as it was.
    pub(crate) fn withdraw(&self, taken: Taken) -> io::Result<()> {
        match taken {
            Taken::Exchanged => exchange(&self.path, &self.place)?,
            Taken::Free { empty_folder } => {
                fs::rename(&self.place.path, &self.path)?;
                if empty_folder {
                    fs::create_dir(&self.place.path)?;
                }
            }
        }
        self.place.sync()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(known) if known.is_dir() => fs::remove_dir_all(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            // It was published.
            Err(_) => return,
        };
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "a folder stays behind");
        }
    }
}

/// `\ooo` is a byte in octal.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let digits = behind.get(..3).and_then(|it| std::str::from_utf8(it).ok());
        let byte = digits.and_then(|it| u8::from_str_radix(it, 8).ok());
        match byte.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

fn hidden(place: &Place) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    place
        .parent
        .join(format!(".lifebelt-{}-{count}", std::process::id()))
}

fn exchange(staged: &Path, place: &Place) -> io::Result<()> {
    match renameat_with(CWD, staged, CWD, &place.path, RenameFlags::EXCHANGE) {
        // The file system cannot: for a moment nothing is there.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            let aside = hidden(place);
            fs::rename(&place.path, &aside)?;
            if let Err(error) = fs::rename(staged, &place.path) {
                fs::rename(&aside, &place.path)?;
                return Err(error);
            }
            fs::rename(&aside, staged)
        }
        done => Ok(done?),
    }
}
