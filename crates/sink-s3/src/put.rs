//! One object, written once.

use std::time::SystemTime;

use backup_core::{
    ByteStream, Clock, Error, ErrorKind, Key, Object, PutOptions, Result, Stamp, SystemClock,
};
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method};

use crate::client::Request;
use crate::failure::Failure;
use crate::lock::{LockMode, Retention};
use crate::part::{Part, Whole};
use crate::sink::text;
use crate::{Encryption, S3Sink};

const STORAGE_CLASS: &str = "x-amz-storage-class";

/// User metadata that tells whose put an object is.
const MARK: &str = "x-amz-meta-lifebelt-put";

/// What one put knows from its beginning.
pub(crate) struct Put<'a> {
    pub(crate) sink: &'a S3Sink,
    pub(crate) key: &'a Key,
    pub(crate) path: String,
    /// Random: an object with it was written by this put and no other.
    mark: String,
    retention: Option<Retention>,
}

/// Cuts data into parts.
pub(crate) struct Cut {
    data: ByteStream,
    /// What did not fit any more, empty only at the end.
    rest: Bytes,
    size: usize,
    pub(crate) len: u64,
    pub(crate) whole: Whole,
}

impl Cut {
    /// Fills `part` up to its size. `true`: more follows. May be dropped and called again.
    pub(crate) async fn fill(&mut self, part: &mut Part) -> Result<bool> {
        loop {
            let room = self.size - part.len;
            if room > 0 && !self.rest.is_empty() {
                let chunk = self.rest.split_to(room.min(self.rest.len()));
                self.len += chunk.len() as u64;
                self.whole.push(&chunk);
                part.push(chunk);
            } else if !self.rest.is_empty() {
                return Ok(true);
            } else {
                match self.data.next().await {
                    Some(chunk) => self.rest = chunk?,
                    None => return Ok(false),
                }
            }
        }
    }
}

/// What the server has of an object after a put.
pub(crate) struct Stored {
    pub(crate) version: Option<String>,
    pub(crate) len: u64,
    pub(crate) checksum: String,
}

impl S3Sink {
    pub(crate) async fn store(
        &self,
        key: &Key,
        data: ByteStream,
        options: &PutOptions,
    ) -> Result<Object> {
        let put = Put::new(self, key, options)?;
        let mut cut = Cut {
            data,
            rest: Bytes::new(),
            size: self.0.part_size,
            len: 0,
            whole: Whole::new(self.0.checksum),
        };
        let mut first = Part::default();
        let stored = match cut.fill(&mut first).await? {
            false => {
                drop(cut);
                put.at_once(&first).await?
            }
            true => put.in_parts(first, cut).await?,
        };
        put.check(stored).await
    }
}

impl<'a> Put<'a> {
    fn new(sink: &'a S3Sink, key: &'a Key, options: &PutOptions) -> Result<Self> {
        let retention = sink.retention(options.retain_until)?;
        let mark = getrandom::u64().map_err(|e| {
            Error::new(ErrorKind::Other, "the system has no random numbers").with_source(e)
        })?;
        Ok(Self {
            path: sink.path(key),
            mark: format!("{mark:016x}"),
            retention,
            sink,
            key,
        })
    }

    /// What is said of an object when it is made, by `PutObject` or `CreateMultipartUpload`.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let settings = &*self.sink.0;
        let mut headers = vec![(MARK, self.mark.clone())];
        if let Some(class) = &settings.storage_class {
            headers.push((STORAGE_CLASS, class.clone()));
        }
        headers.extend(settings.sse.iter().flat_map(Encryption::headers));
        headers.extend(self.retention.iter().flat_map(Retention::headers));
        headers
    }

    async fn at_once(&self, part: &Part) -> Result<Stored> {
        let settings = &*self.sink.0;
        let checksum = part.checksum(settings.checksum);
        let request = Request::object("s3:PutObject", Method::PUT, &self.path)
            .header("if-none-match", "*")
            .header(settings.checksum.header(), &checksum)
            .headers(self.headers())
            .part(part);
        let version = match settings.client.fetch(&request).await {
            Ok((headers, _)) => version(&headers),
            Err(failure) => self.settle(failure).await?,
        };
        Ok(Stored {
            version,
            len: part.len as u64,
            checksum,
        })
    }

    /// Whatever a request said that failed, an object that bears this put's mark is of it: stored
    /// if the answer was lost, and removed if it was no. (versitygw 1.8 refuses a lock after it
    /// has stored what was to be locked.)
    pub(crate) async fn settle(&self, failure: Failure) -> Result<Option<String>> {
        if let Ok(headers) = self.sink.head(&self.path, None).await
            && self.is_ours(&headers)
        {
            let version = version(&headers);
            if failure.unsure {
                return Ok(version);
            }
            self.undo(version.as_deref()).await;
        }
        Err(self.failed(failure))
    }

    fn is_ours(&self, headers: &HeaderMap) -> bool {
        headers.get(MARK).is_some_and(|mark| mark == &*self.mark)
    }

    /// Takes back what must not be seen. What is locked stays, without a manifest.
    async fn undo(&self, version: Option<&str>) {
        if let Err(failure) = self.sink.remove(&self.path, version).await {
            let error = self.failed(failure);
            tracing::info!(sink = %self.sink, key = %self.key, %error, "a bad object stays");
        }
    }

    pub(crate) fn failed(&self, failure: Failure) -> Error {
        failure.into_error(format_args!("put object `{}`", self.key), self.sink)
    }

    /// Looks at what was stored: a success is not believed.
    async fn check(&self, mut stored: Stored) -> Result<Object> {
        let settings = &*self.sink.0;
        let headers = self.sink.head(&self.path, stored.version.as_deref()).await;
        let headers = headers.map_err(|failure| {
            let what = format_args!("look at object `{}` after it was put", self.key);
            failure.into_error(what, self.sink)
        })?;
        // A server that ignores the condition: somebody else's came after ours.
        if headers.contains_key(MARK) && !self.is_ours(&headers) {
            let message = format!(
                "object `{}` in {} is of another writer",
                self.key, self.sink
            );
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        // versitygw 1.8 does not tell it of an upload that is completed for the second time.
        if stored.version.is_none() && self.is_ours(&headers) {
            stored.version = version(&headers);
        }
        let wrong = match self.compare(&stored, &headers) {
            Ok(()) => {
                let mut object = self.sink.object(self.key, &headers)?;
                object.version = stored.version.filter(|_| settings.versions);
                return Ok(object);
            }
            Err(error) => error,
        };
        self.undo(stored.version.as_deref()).await;
        Err(wrong.context(format!("put object `{}` in {}", self.key, self.sink)))
    }

    fn compare(&self, stored: &Stored, headers: &HeaderMap) -> Result<()> {
        let settings = &*self.sink.0;
        let len = text(headers, "content-length").and_then(|len| len.parse::<u64>().ok());
        if len != Some(stored.len) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{} bytes were sent and the server holds {len:?}",
                    stored.len
                ),
            ));
        }
        // Not every server keeps checksums; each verifies the signed SHA-256 of what it gets.
        if let Some(checksum) = text(headers, settings.checksum.header())
            && checksum != stored.checksum
        {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "its checksum is {} and the server's {checksum}",
                    stored.checksum
                ),
            ));
        }
        if settings.versions && stored.version.is_none() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the bucket keeps no versions: turn versioning on, or say versions = false",
            ));
        }
        if let Some(encryption) = &settings.sse {
            encryption.check(headers)?;
        }
        // The standard class is not told.
        let class = text(headers, STORAGE_CLASS).unwrap_or("STANDARD");
        if let Some(wanted) = &settings.storage_class
            && wanted != class
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("storage class {wanted} was asked for and the server tells of {class}"),
            ));
        }
        match &self.retention {
            Some(retention) => retention.check(Retention::told(headers)),
            None => Ok(()),
        }
    }
}

impl S3Sink {
    fn retention(&self, until: Option<SystemTime>) -> Result<Option<Retention>> {
        let settings = &*self.0;
        let now = SystemClock.now();
        let Some(until) = until.or_else(|| Some(settings.lock?.until(now))) else {
            return Ok(None);
        };
        if !settings.object_lock {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{self} locks nothing: set lock or object_lock for a bucket that can"),
            ));
        }
        if until <= now {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a lock until {} is over already", Stamp::from(until)),
            ));
        }
        let mode = settings.lock.map_or(LockMode::Compliance, |lock| lock.mode);
        Ok(Some(Retention::new(mode, until)))
    }
}

/// The version that an answer names. `null` is what an object has that was put while its bucket
/// kept none.
pub(crate) fn version(headers: &HeaderMap) -> Option<String> {
    let version = text(headers, "x-amz-version-id")?;
    (version != "null" && !version.is_empty()).then(|| version.to_owned())
}
