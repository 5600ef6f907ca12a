use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;

use super::{Child, Exit, Program};
use crate::{ByteStream, Error, ErrorKind, Result};

impl Program<'_> {
    /// Runs it with `data` as its standard input. `Ok` only if it read all of it and exited with
    /// status 0; else, and when the future is dropped, it is killed, and may have done half of
    /// its work. An `Err` of `data` comes back unchanged. What it prints is lost.
    pub async fn feed(&self, mut data: ByteStream) -> Result<()> {
        let failed = |e| Error::io(format!("start `{}`", self.name()), e);
        // This end stays open, to see what the program left in the pipe. So writing to a program
        // that is gone blocks instead of failing: its exit is watched instead.
        let (theirs, ours) = std::io::pipe().map_err(failed)?;
        let left = theirs.try_clone().map_err(failed)?;
        let (mut child, _) = self.start(OwnedFd::from(theirs).into(), Stdio::null())?;
        let ours = std::process::ChildStdin::from(OwnedFd::from(ours));
        let mut stdin = ChildStdin::from_std(ours).map_err(failed)?;

        loop {
            let chunk = tokio::select! {
                biased;
                chunk = data.next() => chunk,
                exit = child.exit() => return Err(too_early(&mut child, exit).await),
            };
            match chunk.transpose()? {
                Some(chunk) => write(&mut stdin, chunk, &mut child).await?,
                None => break,
            }
        }
        drop(stdin);
        let exit = child.exit().await;
        child.check(exit, ErrorKind::Other).await?;
        self.all_was_read(&left, &mut child).await
    }

    async fn all_was_read(&self, left: &PipeReader, child: &mut Child) -> Result<()> {
        let unread = rustix::io::ioctl_fionread(left)
            .map_err(|e| Error::io(format!("pipe of `{}`", self.name()), e.into()))?;
        match unread {
            0 => Ok(()),
            n => Err(child
                .failure(ErrorKind::Other, &format!("left {n} bytes unread"))
                .await),
        }
    }
}

async fn write(stdin: &mut ChildStdin, mut chunk: Bytes, child: &mut Child) -> Result<()> {
    while chunk.has_remaining() {
        tokio::select! {
            biased;
            written = stdin.write_buf(&mut chunk) => written.map_err(|e| child.broken(e)).map(drop)?,
            exit = child.exit() => return Err(too_early(child, exit).await),
        }
    }
    Ok(())
}

async fn too_early(child: &mut Child, exit: Exit) -> Error {
    match child.check(exit, ErrorKind::Other).await {
        Err(error) => error,
        Ok(()) => {
            child
                .failure(ErrorKind::Other, "ended before it had read everything")
                .await
        }
    }
}
