use std::fmt;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use backup_core::{
    ByteStream, Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target,
    async_trait,
};
use bytes::{Buf, Bytes};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::time::timeout;

use crate::child::{Child, Exit, Program};
use crate::{CommandTarget, KIND};

/// The longest that an `empty_check` may take.
const CHECK: Duration = Duration::from_secs(60);

impl fmt::Display for CommandTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program(&self.argv).name())
    }
}

#[async_trait]
impl Target for CommandTarget {
    fn kind(&self) -> &str {
        KIND
    }

    /// Nobody can know what a program replaces: occupied, unless an `empty_check` says no.
    async fn occupancy(&self) -> Result<Occupancy> {
        match &self.empty_check {
            Some(argv) => self.ask(argv).await,
            None => Ok(Occupancy::Holds(format!("whatever `{self}` replaces"))),
        }
    }

    /// A program acts on what it reads at once.
    fn publishes_atomically(&self) -> bool {
        false
    }

    /// The program must read everything and exit with status 0. When the part ends in an error or
    /// the future is dropped it is killed, and may have done half of its work.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        no_extra(options)?;
        let part = only_part(self.part.as_deref(), parts)?;
        let fed = self.feed(parts.open(&part).await?);
        match self.timeout {
            Some(limit) => timeout(limit.into(), fed).await.unwrap_or_else(|_| {
                let message = format!("`{self}` ran longer than {limit}");
                Err(Error::new(ErrorKind::Other, message))
            }),
            None => fed.await,
        }
    }
}

impl CommandTarget {
    fn program<'a>(&'a self, argv: &'a [String]) -> Program<'a> {
        Program {
            argv,
            env: &self.env,
            env_clear: self.env_clear,
            directory: self.directory.as_deref(),
        }
    }

    pub(crate) async fn feed(&self, mut data: ByteStream) -> Result<()> {
        let failed = |e| Error::io(format!("start `{self}`"), e);
        // This end stays open, to see what the program left in the pipe. So writing to a program
        // that is gone blocks instead of failing: its exit is watched instead.
        let (theirs, ours) = std::io::pipe().map_err(failed)?;
        let left = theirs.try_clone().map_err(failed)?;
        let (mut child, _) = self
            .program(&self.argv)
            .start(OwnedFd::from(theirs).into(), Stdio::null())?;
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
            .map_err(|e| Error::io(format!("pipe of `{self}`"), e.into()))?;
        match unread {
            0 => Ok(()),
            n => Err(child
                .failure(ErrorKind::Other, &format!("left {n} bytes unread"))
                .await),
        }
    }

    async fn ask(&self, argv: &[String]) -> Result<Occupancy> {
        let program = self.program(argv);
        let name = program.name();
        let (mut child, stdout) = program.start(Stdio::null(), Stdio::piped())?;
        let answer = async {
            let mut said = Vec::new();
            if let Some(stdout) = stdout {
                stdout
                    .take(4096)
                    .read_to_end(&mut said)
                    .await
                    .map_err(|e| child.broken(e))?;
            }
            match child.exit().await {
                Exit::Status(0) => Ok(Occupancy::Empty),
                Exit::Status(1) => Ok(Occupancy::Holds(first_line(&said, name))),
                exit => {
                    child.check(exit, ErrorKind::Other).await?;
                    Ok(Occupancy::Empty)
                }
            }
        };
        timeout(CHECK, answer).await.unwrap_or_else(|_| {
            let message = format!("`{name}` did not tell within {CHECK:?} what a restore replaces");
            Err(Error::new(ErrorKind::Other, message))
        })
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

fn first_line(said: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect();
    line.map_or_else(|| format!("something, says `{name}`"), clean)
}

/// No target of this crate knows an option of its own.
pub(crate) fn no_extra(options: &RestoreOptions) -> Result<()> {
    match options.extra.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("a restore of kind `{KIND}` has no option `{name}`"),
        )),
    }
}

/// The part that was asked for, or the only one.
pub(crate) fn only_part(wanted: Option<&str>, parts: &PartReader) -> Result<String> {
    let mut names = parts.names();
    match (wanted, names.next(), names.next()) {
        (Some(name), ..) => Ok(name.to_owned()),
        (None, Some(name), None) => Ok(name.to_owned()),
        _ => {
            let names: Vec<&str> = parts.names().collect();
            let message = match names.as_slice() {
                [] => "the backup has no part".to_owned(),
                names => format!("which part? the backup has {}", names.join(", ")),
            };
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}
