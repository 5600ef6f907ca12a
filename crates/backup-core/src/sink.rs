//! Where backups are kept.

use std::fmt::{Debug, Display};
use std::ops::Range;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{ByteStream, Check, Key, Result};

/// A place that keeps backups: a folder, a bucket. Written once, never overwritten.
///
/// Implementations do their own retries of single requests; nobody above retries a `put`, because
/// a source cannot be rewound. Every method may be called from many tasks at once.
///
/// Run `backup_core::testing::sink!` on every implementation: it holds one case per sentence here.
#[async_trait]
pub trait Sink: Debug + Display + Send + Sync + 'static {
    /// Stores `data` at `key`: durable and atomic on `Ok`.
    ///
    /// If `data` yields an `Err` that same error comes back, and if the future is dropped the
    /// work is abandoned: in both cases nothing is visible at `key`. A key that exists is
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) and keeps its bytes; of two concurrent
    /// puts of one key exactly one wins. Options that the sink cannot honour are
    /// [`Unsupported`](crate::ErrorKind::Unsupported), never ignored.
    async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object>;

    /// Reads an object, or the half-open byte `range` of it. Missing: `NotFound`.
    ///
    /// A body that ends early ends in `Err`, never in `None`. A range that reaches beyond the
    /// object is [`Invalid`](crate::ErrorKind::Invalid): nobody gets fewer bytes than asked for.
    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream>;

    /// What is known of one object without reading it. Missing: `NotFound`.
    async fn stat(&self, at: &Locator) -> Result<Object>;

    /// Removes that version (never just hides it behind a delete marker). Missing: `Ok`; under
    /// retention: `Locked`, with the date in the message.
    async fn delete(&self, at: &Locator) -> Result<()>;

    /// Every visible object under `prefix` (whole segments; `None` is everything), in any order.
    /// An incomplete listing ends in `Err`.
    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>>;

    /// The distinct next segments under `prefix`, folders and objects alike, in any order:
    /// the ids of a job without walking a million log segments. Where the sink has versions, those
    /// of which only hidden ones are left are among them.
    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>>;

    /// Like [`list`](Self::list), with every version that the sink still holds, hidden ones too;
    /// those of one key come together, the newest first, and delete markers are none. Without
    /// versions it is the same listing.
    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>>;

    /// Removes what abandoned puts left behind and `list` does not show (temporary files, stale
    /// multipart uploads), where it is older than `older_than`.
    async fn sweep(&self, older_than: Duration) -> Result<Swept>;

    /// What this sink can do. Callers ask before they rely on it.
    fn capabilities(&self) -> Capabilities;

    /// How many bytes it can still take, where the place can tell. `None`: nobody knows, as of a
    /// bucket.
    async fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Looks at the place itself for `lifebelt doctor`: settings that this sink relies on, and
    /// rights that its credentials should not have. What it tries must be harmless if it works.
    ///
    /// What could not be looked at is a [`Check`] too; an `Err` says that nothing could.
    async fn examine(&self) -> Result<Vec<Check>> {
        Ok(Vec::new())
    }
}

/// An object as a sink sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// The sink's name for this version, where it has versions.
    pub version: Option<String>,
    /// Bytes.
    pub len: u64,
    /// Nobody can delete it before.
    pub lock_until: Option<SystemTime>,
    /// When the sink says it was written, by the sink's clock.
    pub modified: Option<SystemTime>,
}

impl Object {
    /// An object without version, lock or date.
    pub fn new(key: Key, len: u64) -> Self {
        Self {
            key,
            version: None,
            len,
            lock_until: None,
            modified: None,
        }
    }

    /// Where to find exactly this version.
    pub fn locator(&self) -> Locator {
        Locator {
            key: self.key.clone(),
            version: self.version.clone(),
        }
    }
}

/// A key, and the version of it where that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locator {
    /// The name.
    pub key: Key,
    /// `None`: the visible one.
    pub version: Option<String>,
}

impl From<Key> for Locator {
    fn from(key: Key) -> Self {
        Self { key, version: None }
    }
}

impl From<&Key> for Locator {
    fn from(key: &Key) -> Self {
        key.clone().into()
    }
}

/// What a put asks for beyond the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// Lock the object until this time.
    pub retain_until: Option<SystemTime>,
}

impl PutOptions {
    /// Lock the object until `time`.
    #[must_use]
    pub fn retain_until(mut self, time: SystemTime) -> Self {
        self.retain_until = Some(time);
        self
    }
}

/// What a sink can do and what it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Honours [`PutOptions::retain_until`].
    pub lock: bool,
    /// Keeps versions of an object.
    pub versions: bool,
    /// Refuses a second put of one key by itself, also between two machines.
    pub conditional_put: bool,
    /// The most bytes that one `put` holds in memory beyond the chunk it is given.
    pub put_memory: usize,
}

impl Capabilities {
    /// Nothing special, and `put_memory` bytes per put.
    pub const fn new(put_memory: usize) -> Self {
        Self {
            lock: false,
            versions: false,
            conditional_put: false,
            put_memory,
        }
    }

    /// Declares conditional puts.
    #[must_use]
    pub const fn with_conditional_put(mut self) -> Self {
        self.conditional_put = true;
        self
    }

    /// Declares locks.
    #[must_use]
    pub const fn with_lock(mut self) -> Self {
        self.lock = true;
        self
    }

    /// Declares versions.
    #[must_use]
    pub const fn with_versions(mut self) -> Self {
        self.versions = true;
        self
    }
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects, temporary files or uploads.
    pub objects: u64,
    /// Their bytes, where known.
    pub bytes: u64,
}

impl std::ops::AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}
