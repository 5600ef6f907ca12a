use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    ByteStream, Capabilities, Check, Clock, Error, ErrorKind, Key, Locator, Object, PutOptions,
    Result, Sink, Stamp, Swept, SystemClock, async_trait,
};
use futures::stream::BoxStream;
use http::{HeaderMap, Method, StatusCode};

use crate::answer::Uploads;
use crate::body::length;
use crate::client::{Client, Request};
use crate::failure::Failure;
use crate::lock::{self, Lock, Retention};
use crate::multipart::WINDOW;
use crate::{Checksum, Encryption, S3Options, put, time};

/// A bucket that keeps backups.
///
/// `Display` prints `s3://bucket/prefix`. Clones share their connections.
#[derive(Clone)]
pub struct S3Sink(pub(crate) Arc<Settings>);

/// What [`S3Options`] become when they have been checked.
pub(crate) struct Settings {
    pub(crate) client: Client,
    pub(crate) name: String,
    /// Empty, or with a slash at its end.
    pub(crate) prefix: String,
    pub(crate) lock: Option<Lock>,
    pub(crate) object_lock: bool,
    pub(crate) versions: bool,
    pub(crate) sse: Option<Encryption>,
    pub(crate) storage_class: Option<String>,
    pub(crate) checksum: Checksum,
    pub(crate) part_size: usize,
}

impl S3Sink {
    /// Options for `s3://bucket` or `s3://bucket/prefix`.
    pub fn builder(url: impl Into<String>) -> S3Options {
        S3Options::new(url)
    }

    /// With credentials, region and endpoint from the environment: see [`S3Options::with_env`].
    pub fn from_env(url: impl Into<String>) -> Result<Self> {
        S3Options::new(url).with_env().build()
    }

    /// The key in the bucket.
    pub(crate) fn path(&self, key: &Key) -> String {
        format!("{}{key}", self.0.prefix)
    }

    /// The headers of an object.
    pub(crate) async fn head(
        &self,
        path: &str,
        version: Option<&str>,
    ) -> Result<HeaderMap, Failure> {
        let request = |method| {
            let action = match version {
                Some(_) => "s3:GetObjectVersion",
                None => "s3:GetObject",
            };
            Request::object(action, method, path).version(version)
        };
        let head = request(Method::HEAD).header("x-amz-checksum-mode", "ENABLED");
        let failure = match self.0.client.send(&head).await {
            Ok(answer) => return Ok(answer.into_parts().0.headers),
            Err(failure) => failure,
        };
        if failure.status.is_none() || !failure.code.is_empty() {
            return Err(failure);
        }
        // A HEAD has no body that says why.
        let get = request(Method::GET).header("range", "bytes=0-0");
        match self.0.client.send(&get).await {
            Err(why) if !why.is(StatusCode::RANGE_NOT_SATISFIABLE) => Err(why),
            _ => Err(failure),
        }
    }

    /// Removes a version, or an object of a bucket that keeps none. Missing: `Ok`.
    pub(crate) async fn remove(&self, path: &str, version: Option<&str>) -> Result<(), Failure> {
        let action = match version {
            Some(_) => "s3:DeleteObjectVersion",
            None => "s3:DeleteObject",
        };
        let request = Request::object(action, Method::DELETE, path).version(version);
        match self.0.client.fetch(&request).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_missing() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// An object as its headers tell it.
    pub(crate) fn object(&self, key: &Key, headers: &HeaderMap) -> Result<Object> {
        let len = length(headers).ok_or_else(|| {
            let failure = Failure::nonsense("s3:GetObject", "the answer has no length");
            self.object_failed("stat", key, failure)
        })?;
        let mut object = Object::new(key.clone(), len);
        object.version = put::version(headers).filter(|_| self.0.versions);
        object.lock_until = Retention::told(headers).map(|retention| retention.until);
        object.modified = text(headers, "last-modified").and_then(time::from_header);
        Ok(object)
    }

    pub(crate) fn object_failed(&self, verb: &str, key: &Key, failure: Failure) -> Error {
        failure.into_error(format_args!("{verb} object `{key}`"), self)
    }

    /// Why a version was not deleted: MinIO says 400 where others say 403, so it is asked.
    async fn refused(&self, key: &Key, version: Option<&str>, failure: Failure) -> Error {
        let Ok(headers) = self.head(&self.path(key), version).await else {
            return self.object_failed("delete", key, failure);
        };
        let what = format!("delete object `{key}` in {self}");
        if lock::held(&headers) {
            return Error::new(ErrorKind::Locked, format!("{what}: it is under legal hold"));
        }
        match Retention::told(&headers) {
            Some(Retention { mode, until }) if until > SystemClock.now() => Error::new(
                ErrorKind::Locked,
                format!("{what}: locked ({mode}) until {}", Stamp::from(until)),
            ),
            _ => self.object_failed("delete", key, failure),
        }
    }
}

#[async_trait]
impl Sink for S3Sink {
    async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object> {
        self.store(key, data, options).await
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        self.read(at, range).await
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        let headers = self.head(&self.path(&at.key), at.version.as_deref()).await;
        self.object(
            &at.key,
            &headers.map_err(|f| self.object_failed("stat", &at.key, f))?,
        )
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        let path = self.path(&at.key);
        let version = match &at.version {
            Some(version) => Some(version.clone()),
            // Without its version a delete would only hide it.
            None => match self.head(&path, None).await {
                Ok(headers) => text(&headers, "x-amz-version-id").map(str::to_owned),
                Err(failure) if failure.is_missing() => return Ok(()),
                Err(failure) => return Err(self.object_failed("delete", &at.key, failure)),
            },
        };
        match self.remove(&path, version.as_deref()).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.status.is_some_and(|s| s.is_client_error()) => {
                Err(self.refused(&at.key, version.as_deref(), failure).await)
            }
            Err(failure) => Err(self.object_failed("delete", &at.key, failure)),
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.objects(prefix, false)
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        self.segments(prefix)
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.objects(prefix, self.0.versions)
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        let failed = |failure: Failure| failure.into_error("sweep uploads", self);
        let now = SystemClock.now();
        let mut swept = Swept::default();
        let mut at: Option<(String, String)> = None;
        loop {
            // All of the bucket: MinIO takes a prefix for the whole key.
            let mut request =
                Request::bucket("s3:ListBucketMultipartUploads", Method::GET).query("uploads", "");
            if let Some((key, id)) = &at {
                request = request
                    .query("key-marker", key)
                    .query("upload-id-marker", id);
            }
            let page: Uploads = self.0.client.document(&request).await.map_err(failed)?;
            for upload in page.uploads {
                let begun = upload.initiated.as_deref().and_then(time::from_xml);
                let age = begun.map(|begun| now.duration_since(begun).unwrap_or_default());
                if upload.key.starts_with(&self.0.prefix) && age.is_some_and(|a| a >= older_than) {
                    self.abort(&upload.key, &upload.upload_id)
                        .await
                        .map_err(failed)?;
                    swept.objects += 1;
                }
            }
            at = match (page.next_key_marker, page.next_upload_id_marker) {
                (Some(key), Some(id)) if page.is_truncated => Some((key, id)),
                _ => return Ok(swept),
            };
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut all = Capabilities::new((WINDOW + 1) * self.0.part_size).with_conditional_put();
        if self.0.versions {
            all = all.with_versions();
        }
        if self.0.object_lock {
            all = all.with_lock();
        }
        all
    }

    async fn examine(&self) -> Result<Vec<Check>> {
        self.look().await
    }
}

impl fmt::Display for S3Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl fmt::Debug for S3Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Sink")
            .field("url", &self.0.name)
            .field("base", &self.0.client.base)
            .field("region", &self.0.client.region)
            .field("lock", &self.0.lock)
            .field("versions", &self.0.versions)
            .finish_non_exhaustive()
    }
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
