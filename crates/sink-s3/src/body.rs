//! Bytes on their way back.

use std::ops::Range;

use backup_core::{ByteStream, Error, ErrorKind, Key, Locator, Result};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{HeaderMap, Method, StatusCode};
use object_store::client::HttpError;

use crate::S3Sink;
use crate::client::{Request, SILENCE};
use crate::failure::Failure;
use crate::sink::text;

/// How often a body that broke off may go on without a single byte in between.
const TRIES: u32 = 3;

/// The bytes of a range, all of them or an error.
struct Body {
    sink: S3Sink,
    key: Key,
    path: String,
    version: Option<String>,
    /// Of what was begun: what follows must be of the same object.
    etag: Option<String>,
    left: Range<u64>,
    chunks: Option<BoxStream<'static, Result<Bytes, HttpError>>>,
    tries: u32,
}

impl S3Sink {
    pub(crate) async fn read(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        let path = self.path(&at.key);
        let beyond = |range: &Range<u64>, len: Option<u64>| {
            let of = len.map_or(String::new(), |len| format!(" of {len}"));
            Error::new(
                ErrorKind::Invalid,
                format!("get object `{}`: bytes {range:?}{of} do not exist", at.key),
            )
        };
        let failed = |f: Failure| self.object_failed("get", &at.key, f);
        if let Some(range) = &range
            && range.start >= range.end
        {
            // S3 has no empty ranges.
            let len = self.head(&path, at.version.as_deref()).await;
            let len = length(&len.map_err(failed)?);
            return match range.start == range.end && len.is_some_and(|len| range.end <= len) {
                true => Ok(ByteStream::from_bytes("")),
                false => Err(beyond(range, len)),
            };
        }
        let request = self.get_request(&path, at.version.as_deref(), range.as_ref());
        let answer = match (self.0.client.send(&request).await, &range) {
            (Ok(answer), _) => answer,
            (Err(failure), Some(range)) if failure.is(StatusCode::RANGE_NOT_SATISFIABLE) => {
                return Err(beyond(range, None));
            }
            (Err(failure), _) => return Err(failed(failure)),
        };
        let (head, body) = answer.into_parts();
        let total = total(&head.headers).ok_or_else(|| {
            failed(Failure::nonsense(
                "s3:GetObject",
                "the answer has no length",
            ))
        })?;
        let range = range.unwrap_or(0..total);
        if range.end > total {
            return Err(beyond(&range, Some(total)));
        }
        let partial = head.status == StatusCode::PARTIAL_CONTENT;
        if !partial && range != (0..total) {
            let why = "the server does not know ranges";
            return Err(failed(Failure::nonsense("s3:GetObject", why)));
        }
        let body = Body {
            sink: self.clone(),
            key: at.key.clone(),
            path,
            version: at.version.clone(),
            etag: text(&head.headers, "etag").map(str::to_owned),
            left: range,
            chunks: Some(body.bytes_stream()),
            tries: 0,
        };
        Ok(ByteStream::new(stream::try_unfold(
            body,
            |mut body| async { Ok(body.next().await?.map(|chunk| (chunk, body))) },
        )))
    }

    fn get_request(
        &self,
        path: &str,
        version: Option<&str>,
        range: Option<&Range<u64>>,
    ) -> Request {
        let request = Request::object("s3:GetObject", Method::GET, path).version(version);
        match range {
            // Servers read the numbers as signed ones.
            Some(Range { start, end }) => {
                let last = (end - 1).min(i64::MAX as u64);
                request.header("range", format!("bytes={start}-{last}"))
            }
            None => request,
        }
    }
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.left.is_empty() {
                return Ok(None);
            }
            let broken = match &mut self.chunks {
                None => None,
                Some(chunks) => match tokio::time::timeout(SILENCE, chunks.next()).await {
                    Ok(Some(Ok(chunk))) if chunk.is_empty() => continue,
                    Ok(Some(Ok(mut chunk))) => {
                        let left = self.left.end - self.left.start;
                        chunk
                            .truncate(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()));
                        self.left.start += chunk.len() as u64;
                        self.tries = 0;
                        return Ok(Some(chunk));
                    }
                    Ok(Some(Err(error))) => Some(error),
                    // Ended early, or silent.
                    Ok(None) | Err(_) => None,
                },
            };
            self.resume(broken).await?;
        }
    }

    /// Asks for what is left.
    async fn resume(&mut self, broken: Option<HttpError>) -> Result<()> {
        let left = self.left.end - self.left.start;
        self.tries += 1;
        if self.tries > TRIES {
            let error = Error::new(
                ErrorKind::Corrupt,
                format!(
                    "object `{}` in {} ends {left} bytes early, {TRIES} times in the same place",
                    self.key, self.sink
                ),
            );
            return Err(match broken {
                Some(cause) => error.with_source(cause),
                None => error,
            });
        }
        tracing::debug!(sink = %self.sink, key = %self.key, left, "a body broke off: asks for the rest");
        let mut request =
            self.sink
                .get_request(&self.path, self.version.as_deref(), Some(&self.left));
        if let Some(etag) = &self.etag {
            request = request.header("if-match", etag);
        }
        let answer = self.sink.0.client.send(&request).await;
        let answer = answer.map_err(|failure| match failure.is_taken() {
            true => Error::new(
                ErrorKind::Corrupt,
                format!(
                    "object `{}` in {} changed while it was read",
                    self.key, self.sink
                ),
            ),
            false => self.sink.object_failed("get", &self.key, failure),
        })?;
        let starts = text(answer.headers(), "content-range").and_then(|range| {
            range
                .strip_prefix("bytes ")?
                .split('-')
                .next()?
                .parse()
                .ok()
        });
        if starts != Some(self.left.start) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "object `{}` in {} broke off {left} bytes before its end, and the server \
                     does not give the rest",
                    self.key, self.sink
                ),
            ));
        }
        self.chunks = Some(answer.into_body().bytes_stream());
        Ok(())
    }
}

/// The length of the whole object, whatever range of it was answered.
fn total(headers: &HeaderMap) -> Option<u64> {
    match text(headers, "content-range") {
        Some(range) => range.rsplit('/').next()?.parse().ok(),
        None => length(headers),
    }
}

pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-length")?.parse().ok()
}
