//! Bytes on their way: chunks, and an end that is said and never inferred.

use std::fmt;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt};

use crate::{Error, Result};

/// How large a chunk the pipeline passes on: 256 KiB. Larger ones are cut.
pub const CHUNK: usize = 256 * 1024;

/// The chunks of one part.
///
/// `None` means complete. Anything else that ends it is an `Err`, and after an `Err` nothing more
/// comes. Chunks may have any size, zero included.
pub struct ByteStream(BoxStream<'static, Result<Bytes>>);

impl ByteStream {
    /// Wraps a stream of chunks.
    pub fn new(stream: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Self {
        Self(stream.boxed())
    }

    /// Everything at once, in chunks of [`CHUNK`].
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let mut rest = bytes.into();
        Self::new(stream::iter(std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(CHUNK))))
        })))
    }

    /// A stream that fails at once.
    pub fn fail(error: Error) -> Self {
        Self::new(stream::iter([Err(error)]))
    }

    /// Reads `reader` on a thread named `name` until its end; an error of the reader is the
    /// stream's. Dropping the stream ends the thread after the read it is in.
    pub fn from_reader(name: &str, reader: impl Read + Send + 'static) -> Self {
        crate::pipeline::thread::reader_to_stream(name, Box::new(reader))
    }

    /// Collects everything, refusing to grow beyond `limit` bytes.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.next().await {
            let chunk = chunk?;
            if all.len() + chunk.len() > limit {
                return Err(Error::new(
                    crate::ErrorKind::Corrupt,
                    format!("more than {limit} bytes where fewer were expected"),
                ));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}
