//! What a file has beside its bytes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens,
    utimensat,
};

/// Mode, owner and time, as tar has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970, negative before.
    pub(crate) mtime: i64,
}

impl From<&Stat> for Attributes {
    fn from(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime,
        }
    }
}

impl Attributes {
    /// Root restores owners, and then setuid and setgid bits too. For anybody else the owner is
    /// whoever restores, and those bits would lend out rights that nobody meant to lend.
    fn mode_for(self, root: bool) -> Mode {
        Mode::from_raw_mode(if root { self.mode } else { self.mode & 0o1777 })
    }

    fn owner(self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    fn times(self) -> Timestamps {
        let time = Timespec {
            tv_sec: self.mtime,
            tv_nsec: 0,
        };
        Timestamps {
            last_access: time,
            last_modification: time,
        }
    }

    /// Gives them to an open file or folder.
    pub(crate) fn apply(self, file: impl AsFd, root: bool) -> io::Result<()> {
        let file = file.as_fd();
        // The owner first: changing it clears setuid.
        if root {
            let (user, group) = self.owner();
            fchown(file, user, group)?;
        }
        fchmod(file, self.mode_for(root))?;
        Ok(futimens(file, &self.times())?)
    }

    /// Gives them to the link `name` itself. Links have no mode.
    pub(crate) fn apply_to_link(
        self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        root: bool,
    ) -> io::Result<()> {
        if root {
            let (user, group) = self.owner();
            chownat(folder, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(utimensat(
            folder,
            name,
            &self.times(),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}
