//! Pipes between threads and tasks. Each carries data, then exactly one word on how it ended.

use std::io::{self, Read};
use std::thread;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream;
use tokio::sync::mpsc;

use crate::stream::CHUNK;
use crate::transform::Reader;
use crate::{ByteStream, Error, ErrorKind, Result};

/// How many chunks a pipe holds before its writer waits: 8, so 2 MiB.
pub(crate) const SLOTS: usize = 8;

enum Message {
    Data(Bytes),
    End,
    Fail(Error),
}

/// A pipe bounded in bytes: [`SLOTS`] chunks of at most [`CHUNK`].
pub(crate) fn pipe() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = mpsc::channel(SLOTS);
    let reader = PipeReader {
        receiver,
        chunk: Bytes::new(),
        ended: false,
    };
    (PipeWriter(sender), reader)
}

/// Dropped without [`end`](Self::end), the other side reads `Cancelled`, never the end.
pub(crate) struct PipeWriter(mpsc::Sender<Message>);

/// The reader of a pipe went away; what it knows of the reason comes another way.
pub(crate) fn reader_gone() -> Error {
    Error::new(ErrorKind::Cancelled, "the reader of this stream stopped")
}

impl PipeWriter {
    /// Waits for room. Cuts chunks that are too large.
    pub(crate) async fn send(&self, mut chunk: Bytes) -> Result<()> {
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(CHUNK));
            self.message(Message::Data(piece)).await?;
        }
        Ok(())
    }

    pub(crate) async fn finish(self, outcome: Result<()>) -> Result<()> {
        self.message(last(outcome)).await
    }

    async fn message(&self, message: Message) -> Result<()> {
        self.0.send(message).await.map_err(|_| reader_gone())
    }

    /// [`send`](Self::send) for threads; `chunk` is at most [`CHUNK`] long.
    pub(crate) fn blocking_send(&self, chunk: Bytes) -> Result<()> {
        self.0
            .blocking_send(Message::Data(chunk))
            .map_err(|_| reader_gone())
    }

    /// [`finish`](Self::finish) for threads.
    pub(crate) fn blocking_finish(self, outcome: Result<()>) {
        // A reader that is gone needs no last word.
        let _ = self.0.blocking_send(last(outcome));
    }

    /// Whether the reader went away.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

fn last(outcome: Result<()>) -> Message {
    match outcome {
        Ok(()) => Message::End,
        Err(error) => Message::Fail(error),
    }
}

/// The other end: a `Read` for threads, [`next`](Self::next) for tasks.
pub(crate) struct PipeReader {
    receiver: mpsc::Receiver<Message>,
    chunk: Bytes,
    ended: bool,
}

impl PipeReader {
    /// The next chunk; `None` only after the writer said that it was all.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let message = self.receiver.recv().await;
        self.take(message)
    }

    /// [`next`](Self::next) for threads.
    pub(crate) fn blocking_next(&mut self) -> Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let message = self.receiver.blocking_recv();
        self.take(message)
    }

    fn take(&mut self, message: Option<Message>) -> Result<Option<Bytes>> {
        match message {
            Some(Message::Data(chunk)) => Ok(Some(chunk)),
            Some(Message::End) => {
                self.ended = true;
                Ok(None)
            }
            Some(Message::Fail(error)) => Err(error),
            None => Err(Error::new(
                ErrorKind::Cancelled,
                "the writer of this stream vanished before its end",
            )),
        }
    }

    pub(crate) fn into_stream(self) -> ByteStream {
        ByteStream::new(stream::unfold(Some(self), |state| async {
            let mut pipe = state?;
            match pipe.next().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(pipe))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            let message = self.receiver.blocking_recv();
            if let Some(chunk) = self.take(message)? {
                self.chunk = chunk;
            }
        }
        let n = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

/// A thread of our own, named for whoever looks with `top -H`.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    // The kernel keeps 15 characters of a name.
    let name: String = name.chars().take(15).collect();
    thread::Builder::new()
        .name(name)
        .spawn(body)
        .map(drop)
        .map_err(|e| Error::io("cannot start a thread", e))
}

/// Pumps `reader` through a pipe on a thread of its own.
pub(crate) fn pump(name: &str, mut reader: Reader) -> PipeReader {
    let (writer, pipe) = pipe();
    let started = spawn(name, move || {
        let outcome = drain(&mut reader, &writer);
        writer.blocking_finish(outcome);
    });
    match started {
        Ok(()) => pipe,
        Err(error) => {
            let (failing, pipe) = self::pipe();
            // An empty pipe has room for one message.
            let _ = failing.0.try_send(Message::Fail(error));
            pipe
        }
    }
}

fn drain(reader: &mut Reader, writer: &PipeWriter) -> Result<()> {
    loop {
        let mut chunk = BytesMut::zeroed(CHUNK);
        let n = read_full(reader, &mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        let all = n == CHUNK;
        chunk.truncate(n);
        writer.blocking_send(chunk.freeze())?;
        if !all {
            return Ok(());
        }
    }
}

/// Fills `buffer` unless the end comes first; tells how much there was.
pub(crate) fn read_full(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// A `Read` on a thread as a stream for tasks.
pub(crate) fn reader_to_stream(name: &str, reader: Reader) -> ByteStream {
    pump(name, reader).into_stream()
}
