//! From a task to a thread: for sinks and targets that write with blocking calls.

use std::fmt;
use std::io::{self, Read};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;

use crate::pipeline::thread::{PipeReader, PipeWriter, pipe};
use crate::task::broke_off;
use crate::{ByteStream, Error, ErrorKind, Result};

impl ByteStream {
    /// Runs `work` on one blocking thread, feeds it these bytes and gives back what it returns.
    ///
    /// Whatever `work` makes visible it makes visible in [`Publication::publish`]. Then an `Err`
    /// of `work` undoes it, and so does dropping the future at any point before it is ready:
    /// afterwards nothing is published and nothing will be. Holds 2 MiB beyond the chunk in hand.
    ///
    /// Needs a tokio runtime.
    pub async fn consume<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut StreamReader, &Publication) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (writer, reader) = pipe();
        let publication = Publication::default();
        let feeding = pin!(feed(self, writer));
        // Dropped before `feeding`: a worker whose bytes are cut off can publish nothing any more.
        let caller = Caller(publication.clone());
        let task =
            tokio::task::spawn_blocking(move || work(&mut StreamReader(reader), &publication));
        feeding.await;
        let done = task.await.unwrap_or_else(broke_off)?;
        caller.keep();
        Ok(done)
    }
}

async fn feed(mut data: ByteStream, writer: PipeWriter) {
    loop {
        // A worker that failed is seen at once, not with the next chunk.
        let next = tokio::select! {
            next = data.next() => next,
            () = writer.closed() => return,
        };
        let sent = match next {
            Some(Ok(chunk)) => writer.send(chunk).await,
            Some(Err(error)) => return drop(writer.finish(Err(error)).await),
            None => return drop(writer.finish(Ok(())).await),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// A [`ByteStream`] as a thread sees it, chunk by chunk or as a [`Read`].
///
/// The end is the stream's own `None`. An error of the stream comes out unchanged; when whoever
/// fed it went away it is [`Cancelled`](ErrorKind::Cancelled).
pub struct StreamReader(PipeReader);

impl StreamReader {
    /// Waits for the next chunk; `None` is the complete end.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        self.0.blocking_next()
    }
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamReader")
    }
}

/// Decides between a worker that is about to publish and a caller that is about to leave.
#[derive(Clone, Default)]
pub struct Publication(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Pending,
    Published(Box<dyn FnOnce() + Send>),
    /// By the caller, to whom the result went or who went away.
    Settled,
}

impl Publication {
    /// Runs `make_visible`, unless the caller is gone: then it is
    /// [`Cancelled`](ErrorKind::Cancelled). `undo` runs if the caller never gets an `Ok`.
    ///
    /// A caller that leaves meanwhile waits for `make_visible`: let it be a rename.
    pub fn publish<T>(
        &self,
        make_visible: impl FnOnce() -> Result<T>,
        undo: impl FnOnce() + Send + 'static,
    ) -> Result<T> {
        let mut state = self.lock();
        if !matches!(*state, State::Pending) {
            return Err(Error::new(ErrorKind::Cancelled, "the caller went away"));
        }
        let made = make_visible()?;
        *state = State::Published(Box::new(undo));
        Ok(made)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Publication")
    }
}

/// The caller's side: dropped before [`keep`](Self::keep), it undoes.
struct Caller(Publication);

impl Caller {
    fn keep(self) {
        *self.0.lock() = State::Settled;
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let State::Published(undo) = std::mem::replace(&mut *state, State::Settled) {
            undo();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn an_error_of_the_stream_reaches_the_worker_and_comes_back() {
        let data = ByteStream::new(futures::stream::iter([
            Ok(Bytes::from_static(b"half")),
            Err(Error::new(ErrorKind::Source, "pg_dump exited 1")),
        ]));
        let result = data
            .consume(|data, _| Ok(io::copy(data, &mut io::sink())?))
            .await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert_eq!(error.to_string(), "pg_dump exited 1");
    }

    #[tokio::test]
    async fn a_caller_that_leaves_before_the_worker_publishes_stops_it() {
        let (told, tell) = mpsc::channel();
        let endless = ByteStream::new(futures::stream::pending());
        let running = endless.consume(move |data, publication| {
            let read = data.next_chunk().map_err(|e| e.kind());
            let published = publication.publish(|| Ok(()), || ());
            told.send((read, published.map_err(|e| e.kind()))).unwrap();
            Ok(())
        });
        assert!(futures::poll!(Box::pin(running)).is_pending());
        let (read, published) = tell.recv().unwrap();
        assert_eq!(read.unwrap_err(), ErrorKind::Cancelled);
        assert_eq!(published.unwrap_err(), ErrorKind::Cancelled);
    }

    #[tokio::test]
    async fn a_failure_after_publishing_undoes_it() {
        let (told, tell) = mpsc::channel();
        let result: Result<()> = ByteStream::from_bytes("x")
            .consume(move |_, publication| {
                publication.publish(|| Ok(()), move || told.send("undone").unwrap())?;
                Err(Error::new(ErrorKind::Sink, "fsync"))
            })
            .await;
        assert!(result.is_err());
        assert_eq!(tell.try_recv(), Ok("undone"));
    }

    #[tokio::test]
    async fn what_was_published_and_told_is_kept() {
        let (told, tell) = mpsc::channel();
        ByteStream::from_bytes("x")
            .consume(move |_, publication| {
                publication.publish(|| Ok(()), move || told.send("undone").unwrap())
            })
            .await
            .unwrap();
        assert!(tell.try_recv().is_err());
    }
}
