//! A folder that is being filled. Every step is taken from an open folder to a name in it and
//! through no link, so nothing outside can be reached.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::{Errno, retry_on_intr};

/// An open root, and the open folders down to where work was done last.
pub(crate) struct Tree {
    root: OwnedFd,
    path: Vec<(Vec<u8>, OwnedFd)>,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            path: Vec::new(),
        }
    }

    /// Opens the folder at `names` below the root; missing ones are made where `create` says so.
    pub(crate) fn enter(&mut self, names: &[&[u8]], create: bool) -> io::Result<BorrowedFd<'_>> {
        let same = self
            .path
            .iter()
            .zip(names)
            .take_while(|((have, _), want)| have == *want);
        let same = same.count();
        self.path.truncate(same);
        for name in &names[same..] {
            let at = self.path.last().map_or(&self.root, |(_, folder)| folder);
            if create {
                match mkdirat(at, *name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = retry_on_intr(|| openat(at, *name, flags, Mode::empty()))?;
            self.path.push((name.to_vec(), folder));
        }
        Ok(self
            .path
            .last()
            .map_or(&self.root, |(_, folder)| folder)
            .as_fd())
    }
}
