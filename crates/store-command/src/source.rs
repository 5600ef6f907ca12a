use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::process::{Child, Exit, GRACE, Program};
use backup_core::{
    ByteStream, CHUNK, ErrorKind, Facts, PartWriter, Request, RestoreStep, Result, Source,
    StockCommand, async_trait,
};
use bytes::{Bytes, BytesMut};
use futures::stream;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{Command, KIND};

#[async_trait]
impl Source for Command {
    fn kind(&self) -> &str {
        KIND
    }

    /// Facts: `program` and `bytes`.
    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        let bytes = Arc::new(AtomicU64::new(0));
        out.write(&self.part, self.output(Arc::clone(&bytes))?)
            .await?;
        Ok(Facts::new()
            .with("program", self.program().name())
            .with("bytes", bytes.load(Ordering::Relaxed)))
    }

    fn restore_steps(&self) -> Vec<RestoreStep> {
        let (what, command) = match &self.restore {
            Some(argv) => (
                "feed it to the program that takes it",
                StockCommand::new(argv),
            ),
            None => (
                "write it to a file",
                StockCommand::new(["dd", "bs=1M", "of=$TARGET"]),
            ),
        };
        vec![RestoreStep {
            part: self.part.clone(),
            what: what.into(),
            command,
            tools: Vec::new(),
        }]
    }
}

impl Command {
    fn program(&self) -> Program<'_> {
        Program {
            argv: &self.argv,
            env: &self.env,
            env_clear: self.env_clear,
            directory: self.directory.as_deref(),
        }
    }

    /// Starts the program. Its output ends only if everything about it was right. `count` is how
    /// many bytes there were.
    pub(crate) fn output(&self, count: Arc<AtomicU64>) -> Result<ByteStream> {
        let (child, stdout) = self.program().start(Stdio::null(), Stdio::piped())?;
        let output = Output {
            options: self.clone(),
            child,
            stdout,
            deadline: self.timeout.map(|limit| Instant::now() + limit.into()),
            buffer: BytesMut::new(),
            head: Vec::new(),
            tail: Vec::new(),
            sealed: self.sha256_trailer.then(Sealed::default),
            count,
        };
        Ok(ByteStream::new(stream::try_unfold(
            output,
            |mut output| async {
                let chunk = output.next().await?;
                Ok(chunk.map(|chunk| (chunk, output)))
            },
        )))
    }
}

struct Output {
    options: Command,
    child: Child,
    /// `None` once it ended.
    stdout: Option<ChildStdout>,
    deadline: Option<Instant>,
    buffer: BytesMut,
    /// The first bytes, as many as the magic has.
    head: Vec<u8>,
    /// The last bytes, as many as the trailer has.
    tail: Vec<u8>,
    /// Where the output ends with a hash of itself.
    sealed: Option<Sealed>,
    count: Arc<AtomicU64>,
}

/// The SHA-256 of all bytes but the last ones, and these.
#[derive(Default)]
struct Sealed {
    hash: Sha256,
    last: BytesMut,
}

impl Sealed {
    const LEN: usize = 32;

    fn feed(&mut self, chunk: &[u8]) {
        let hashed = (self.last.len() + chunk.len()).saturating_sub(Self::LEN);
        let of_last = self.last.split_to(hashed.min(self.last.len()));
        let (of_chunk, rest) = chunk.split_at(hashed - of_last.len());
        self.hash.update(&of_last);
        self.hash.update(of_chunk);
        self.last.extend_from_slice(rest);
    }

    fn holds(self) -> bool {
        self.last[..] == self.hash.finalize()[..]
    }
}

/// What happened while waiting.
enum Event {
    Bytes(std::io::Result<usize>),
    Exit(Exit),
    Stalled,
    Late,
}

impl Output {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.wait().await {
                Event::Bytes(Ok(0)) => self.stdout = None,
                Event::Bytes(Ok(_)) => {
                    let chunk = self.buffer.split().freeze();
                    self.look_at(&chunk).await?;
                    return Ok(Some(chunk));
                }
                Event::Bytes(Err(error)) => return Err(self.child.broken(error)),
                // What else it wrote is of no use if it failed.
                Event::Exit(exit) => self.child.check(exit, ErrorKind::Source).await?,
                Event::Stalled => return Err(self.stalled().await),
                Event::Late => {
                    return Err(self.fail("ran longer than its `timeout` allows").await);
                }
            }
            if self.stdout.is_none() && self.child.has_exited() {
                self.ended().await?;
                return Ok(None);
            }
        }
    }

    /// The next byte, the end of the program, or the end of patience.
    async fn wait(&mut self) -> Event {
        let (exited, deadline) = (self.child.has_exited(), self.deadline);
        let patience = Duration::from(self.options.stall_timeout);
        let patience = if exited {
            patience.min(GRACE)
        } else {
            patience
        };
        // A program that never pauses runs out of time too.
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Event::Late;
        }
        if self.buffer.capacity() < CHUNK / 4 {
            self.buffer.reserve(CHUNK);
        }
        tokio::select! {
            biased;
            read = async {
                match &mut self.stdout {
                    Some(stdout) => stdout.read_buf(&mut self.buffer).await,
                    None => std::future::pending().await,
                }
            } => Event::Bytes(read),
            exit = self.child.exit(), if !exited => Event::Exit(exit),
            () = sleep(patience) => Event::Stalled,
            () = sleep_until(deadline.unwrap_or_else(far)), if deadline.is_some() => Event::Late,
        }
    }

    async fn look_at(&mut self, chunk: &Bytes) -> Result<()> {
        let count =
            self.count.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
        if let Some(limit) = self.options.max_size.filter(|limit| count > *limit) {
            return Err(self
                .fail(&format!("wrote more than {limit} bytes, its max_size"))
                .await);
        }
        let magic = &self.options.magic.0;
        if self.head.len() < magic.len() {
            let missing = (magic.len() - self.head.len()).min(chunk.len());
            self.head.extend_from_slice(&chunk[..missing]);
            if !magic.starts_with(&self.head) {
                return Err(self.wrong_magic().await);
            }
        }
        let keep = self.options.trailer.0.len();
        self.tail
            .extend_from_slice(&chunk[chunk.len().saturating_sub(keep)..]);
        let excess = self.tail.len().saturating_sub(keep);
        self.tail.drain(..excess);
        if let Some(sealed) = &mut self.sealed {
            sealed.feed(chunk);
        }
        Ok(())
    }

    /// The pipe is closed and the program succeeded: was it all?
    async fn ended(&mut self) -> Result<()> {
        let (count, least) = (self.count.load(Ordering::Relaxed), self.options.min_size);
        if count < least {
            let what = format!("wrote {count} bytes where at least {least} were expected");
            return Err(self.fail(&what).await);
        }
        if self.head != self.options.magic.0 {
            return Err(self.wrong_magic().await);
        }
        if self.tail != self.options.trailer.0 {
            let (found, wanted) = (self.tail.escape_ascii(), &self.options.trailer);
            let what = format!("ended with \"{found}\" instead of {wanted:?}");
            return Err(self.fail(&what).await);
        }
        if self.sealed.take().is_some_and(|sealed| !sealed.holds()) {
            let what =
                "did not end with the SHA-256 of what it wrote: it is damaged, or was cut off";
            return Err(self.fail(what).await);
        }
        Ok(())
    }

    async fn wrong_magic(&mut self) -> backup_core::Error {
        let (found, wanted) = (self.head.escape_ascii(), &self.options.magic);
        let what = format!("began with \"{found}\" instead of {wanted:?}");
        self.fail(&what).await
    }

    async fn stalled(&mut self) -> backup_core::Error {
        let limit = Duration::from(self.options.stall_timeout);
        let what = match (self.child.has_exited(), &self.stdout) {
            (true, _) => "exited, but something that it started keeps its output open".into(),
            (false, Some(_)) => format!("wrote nothing for {limit:?}"),
            (false, None) => format!("closed its output and did not exit for {limit:?}"),
        };
        self.fail(&what).await
    }

    async fn fail(&mut self, what: &str) -> backup_core::Error {
        self.child.failure(ErrorKind::Source, what).await
    }
}

/// A deadline that nobody lives to see.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(u32::MAX.into())
}
