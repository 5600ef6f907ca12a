//! What one host remembers of a job. All of it may vanish at any time; no restore needs it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as Io, Write};
use std::path::PathBuf;

use super::Job;
use crate::chain::Head;
use crate::{Error, ErrorKind, Result};

/// Ends the exclusion of a second run on this host when dropped.
#[derive(Debug)]
pub(super) struct RunLock(File);

impl Drop for RunLock {
    /// Closing it is not enough: a child that was forked a moment ago has it open until it is another
    /// program.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

impl Job {
    /// `<state_dir>/<job>`, made if needed.
    pub(super) fn state_folder(&self) -> Result<Option<PathBuf>> {
        let Some(dir) = &self.0.state_dir else {
            return Ok(None);
        };
        let folder = dir.join(self.name());
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&folder)
            .map_err(|e| Error::io(format!("state folder `{}`", folder.display()), e))?;
        Ok(Some(folder))
    }

    /// Keeps a second run of this job off, on this host. The kernel ends the lock with the process.
    pub(super) fn lock_run(&self) -> Result<Option<RunLock>> {
        let Some(folder) = self.state_folder()? else {
            return Ok(None);
        };
        let path = folder.join("run.lock");
        let named = |e| Error::io(format!("lock `{}`", path.display()), e);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        let file = options.open(&path).map_err(named)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(RunLock(file))),
            Err(fs::TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Locked,
                format!(
                    "another run of job `{}` is going on on this host",
                    self.name()
                ),
            )),
            Err(fs::TryLockError::Error(e)) => Err(named(e)),
        }
    }

    /// The newest backup that this host saw. Unreadable is the same as none.
    pub(super) fn remembered(&self) -> Option<Head> {
        let path = self
            .0
            .state_dir
            .as_ref()?
            .join(self.name())
            .join("head.json");
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Remembers `head` unless something newer is remembered already.
    pub(super) fn remember(&self, head: &Head) -> Result<()> {
        let Some(folder) = self.state_folder()? else {
            return Ok(());
        };
        if self
            .remembered()
            .is_some_and(|known| known.sequence > head.sequence)
        {
            return Ok(());
        }
        let (path, temp) = (folder.join("head.json"), folder.join("head.json.new"));
        let write = || {
            let mut file = File::create(&temp)?;
            serde_json::to_writer(&mut file, head)?;
            file.flush()?;
            file.sync_all()?;
            fs::rename(&temp, &path)
        };
        match write() {
            Err(e) if e.kind() != Io::NotFound => Err(Error::io(
                format!("remember the newest backup in `{}`", path.display()),
                e,
            )),
            _ => Ok(()),
        }
    }
}
