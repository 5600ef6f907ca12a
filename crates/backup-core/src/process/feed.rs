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
        let mut fed = self.pour(&mut data).await?;
        match fed.unread {
            None => Err(fed.failure("ended before it had read everything").await),
            Some(0) => Ok(()),
            Some(n) => Err(fed.failure(&format!("left {n} bytes unread")).await),
        }
    }

    /// As [`feed`](Self::feed), for a program that may end well as soon as it has read what it
    /// wants. Returns the rest of `data`: nobody has seen yet whether it ends well.
    pub async fn feed_some(&self, data: ByteStream) -> Result<ByteStream> {
        let mut data = ByteStream::new(data.fuse());
        self.pour(&mut data).await?;
        Ok(data)
    }

    /// Writes `data` until it ends or the program does, which must be with status 0.
    async fn pour(&self, data: &mut ByteStream) -> Result<Fed> {
        let failed = |e| Error::io(format!("start `{}`", self.name()), e);
        // This end stays open, to see what the program left in the pipe. So writing to a program
        // that is gone blocks instead of failing: its exit is watched instead.
        let (theirs, ours) = std::io::pipe().map_err(failed)?;
        let left = theirs.try_clone().map_err(failed)?;
        let (mut child, _) = self.start(OwnedFd::from(theirs).into(), Stdio::null())?;
        let ours = std::process::ChildStdin::from(OwnedFd::from(ours));
        let mut stdin = ChildStdin::from_std(ours).map_err(failed)?;

        let early = loop {
            let chunk = tokio::select! {
                biased;
                chunk = data.next() => chunk,
                exit = child.exit() => break Some(exit),
            };
            let Some(chunk) = chunk.transpose()? else {
                break None;
            };
            if let Some(exit) = write(&mut stdin, chunk, &mut child).await? {
                break Some(exit);
            }
        };
        drop(stdin);
        let exit = child.exit().await;
        child.check(exit, ErrorKind::Other).await?;
        let unread = match early {
            Some(_) => None,
            None => Some(self.unread(&left)?),
        };
        Ok(Fed { child, unread })
    }

    fn unread(&self, left: &PipeReader) -> Result<u64> {
        rustix::io::ioctl_fionread(left)
            .map_err(|e| Error::io(format!("pipe of `{}`", self.name()), e.into()))
    }
}

/// A program that has ended well.
struct Fed {
    child: Child,
    /// How much it left in the pipe; `None`: it did not wait for the end.
    unread: Option<u64>,
}

impl Fed {
    async fn failure(&mut self, what: &str) -> Error {
        self.child.failure(ErrorKind::Other, what).await
    }
}

/// How the program ended, if it did so before it had taken all of `chunk`.
async fn write(
    stdin: &mut ChildStdin,
    mut chunk: Bytes,
    child: &mut Child,
) -> Result<Option<Exit>> {
    while chunk.has_remaining() {
        tokio::select! {
            biased;
            written = stdin.write_buf(&mut chunk) => written.map_err(|e| child.broken(e)).map(drop)?,
            exit = child.exit() => return Ok(Some(exit)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::Env;
    use super::*;

    /// What is left of `length` bytes once `script` has ended.
    async fn feed(script: &str, length: usize) -> (Result<()>, Result<usize>) {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let program = Program {
            argv: &argv,
            env: &Env::default(),
            env_clear: false,
            directory: None,
        };
        let data = || ByteStream::from_bytes(vec![0; length]);
        let some = match program.feed_some(data()).await {
            Ok(rest) => rest.collect(length).await.map(|rest| rest.len()),
            Err(error) => Err(error),
        };
        (program.feed(data()).await, some)
    }

    #[tokio::test]
    async fn who_wants_only_some_of_it_leaves_the_rest_to_the_caller() {
        let (all, some) = feed("cat > /dev/null", 9 << 20).await;
        all.unwrap();
        assert_eq!(some.unwrap(), 0);
        for length in [1000, 9 << 20] {
            let (all, some) = feed("head -c 10 > /dev/null", length).await;
            assert_eq!(all.unwrap_err().kind(), ErrorKind::Other);
            assert_eq!(some.unwrap() > 0, length > 1000, "{length}");
            let (all, some) = feed("head -c 10 > /dev/null; exit 3", length).await;
            for error in [all.unwrap_err(), some.unwrap_err()] {
                assert!(error.to_string().contains("status 3"), "{error}");
            }
        }
    }
}
