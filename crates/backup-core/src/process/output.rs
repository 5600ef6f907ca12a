use std::process::Stdio;

use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;
use tokio::time::sleep;

use super::{Child, Exit, GRACE, Program};
use crate::{ByteStream, CHUNK, ErrorKind, Result};

impl Program<'_> {
    /// Starts it; the stream is its standard output. The stream ends only if the program exited
    /// with status 0, else in an error of `kind` with its last words. Dropping it kills the
    /// program.
    pub fn output(&self, kind: ErrorKind) -> Result<ByteStream> {
        let (child, stdout) = self.start(Stdio::null(), Stdio::piped())?;
        let output = Output {
            child,
            stdout,
            buffer: BytesMut::new(),
            kind,
        };
        let next = |mut output: Output| async {
            let chunk = output.next().await?;
            Ok(chunk.map(|chunk| (chunk, output)))
        };
        Ok(ByteStream::new(stream::try_unfold(output, next)))
    }
}

struct Output {
    child: Child,
    /// `None` once it ended.
    stdout: Option<ChildStdout>,
    buffer: BytesMut,
    kind: ErrorKind,
}

impl Output {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(stdout) = &mut self.stdout {
            if self.buffer.capacity() < CHUNK / 4 {
                self.buffer.reserve(CHUNK);
            }
            let exited = self.child.has_exited();
            let read = tokio::select! {
                biased;
                read = stdout.read_buf(&mut self.buffer) => read,
                exit = self.child.exit(), if !exited => {
                    self.child.check(exit, self.kind).await?;
                    continue;
                }
                // What it had written is still in the pipe, or something that it started holds it.
                () = sleep(GRACE), if exited => {
                    let what = "exited, but something that it started keeps its output open";
                    return Err(self.child.failure(self.kind, what).await);
                }
            };
            match read.map_err(|e| self.child.broken(e))? {
                0 => self.stdout = None,
                _ => return Ok(Some(self.buffer.split().freeze())),
            }
        }
        let exit: Exit = self.child.exit().await;
        self.child.check(exit, self.kind).await?;
        Ok(None)
    }
}
