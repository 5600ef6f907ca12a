//! Several connections for one archive.

use std::io::{Seek, Write};
use std::process::Stdio;

use backup_core::{ByteStream, Error, ErrorKind, Result};
use futures::StreamExt;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::fill::drain;
use crate::programs::Tool;

impl Tool {
    /// Feeds `data` to it, and reads to the end, where hashes are checked, what it does not want.
    async fn feed(&self, data: ByteStream) -> Result<()> {
        match self.chooses {
            true => drain(self.program().feed_some(data).await?).await,
            false => self.program().feed(data).await,
        }
    }

    /// Feeds `data` to `pg_restore`, which takes its entries by `jobs` connections at once, as far as
    /// they do not wait for each other: indexes above all. For that it reads where it likes, so
    /// `data` is held in memory: for a schema, not for rows. Where the program is not on this
    /// machine, one connection does it, and nothing is held.
    pub(crate) async fn feed_in_jobs(&self, mut data: ByteStream, jobs: usize) -> Result<()> {
        if jobs < 2 || !self.is_local {
            return self.feed(data).await;
        }
        let failed = |e| Error::io("hold a schema in memory", e);
        let file = memfd_create("post-data", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let mut file = std::fs::File::from(file);
        while let Some(chunk) = data.next().await {
            file.write_all(&chunk?).map_err(failed)?;
        }
        file.rewind().map_err(failed)?;
        // Each of its processes opens the file anew: by this name, since it has no other.
        let tool = self.clone().arg(format!("--jobs={jobs}")).arg("/dev/stdin");
        let program = tool.program();
        let (mut child, _) = program.start(Stdio::from(file), Stdio::null())?;
        let exit = child.exit().await;
        child.check(exit, ErrorKind::Other).await
    }
}
