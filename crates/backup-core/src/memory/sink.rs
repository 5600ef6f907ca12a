//! A sink in memory, with locks and versions where they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use super::held;
use crate::{
    ByteStream, Capabilities, Clock, Error, ErrorKind, Key, Locator, Object, PutOptions, Result,
    Sink, Stamp, Swept,
};

/// A sink that keeps its objects in memory, and keeps every promise of [`Sink`] but to outlive
/// the process.
#[derive(Clone, Default)]
pub struct MemorySink {
    objects: Arc<Mutex<BTreeMap<Key, Vec<Version>>>>,
    clock: Option<Arc<dyn Clock>>,
    versions: bool,
    free: Option<u64>,
}

/// Versions in this process: each has a name of its own.
static VERSIONS: AtomicU64 = AtomicU64::new(0);

/// One version of an object, or a delete marker. The newest of a key is its last.
struct Version {
    name: Option<String>,
    /// `None`: a delete marker.
    bytes: Option<Bytes>,
    lock_until: Option<SystemTime>,
    modified: Option<SystemTime>,
}

impl MemorySink {
    /// An empty sink without locks.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty sink that locks objects when asked to, and dates them, by `clock`.
    pub fn with_lock(clock: impl Clock) -> Self {
        Self {
            clock: Some(Arc::new(clock)),
            ..Self::default()
        }
    }

    /// The same, which also keeps every version: like a bucket with Object Lock.
    pub fn with_versions(clock: impl Clock) -> Self {
        Self {
            versions: true,
            ..Self::with_lock(clock)
        }
    }

    /// Says that so many bytes are free, and takes more all the same.
    #[must_use]
    pub fn free(mut self, bytes: u64) -> Self {
        self.free = Some(bytes);
        self
    }

    /// Puts a delete marker on `key`: what anybody with the right to delete can do in a bucket
    /// with versions, to a locked object too.
    pub fn hide(&self, key: &Key) {
        self.push(&mut self.objects(), key, None, None);
    }

    /// Puts another version on top of `key`: what anybody with the right to write can do in a
    /// bucket with versions, to a locked object too.
    pub fn shadow(&self, key: &Key, bytes: impl Into<Bytes>) {
        self.push(&mut self.objects(), key, Some(bytes.into()), None);
    }

    fn push(
        &self,
        objects: &mut BTreeMap<Key, Vec<Version>>,
        key: &Key,
        bytes: Option<Bytes>,
        lock_until: Option<SystemTime>,
    ) -> Object {
        let count = VERSIONS.fetch_add(1, Ordering::Relaxed);
        let version = Version {
            name: self.versions.then(|| format!("v{count}")),
            bytes,
            lock_until,
            modified: self.clock.as_ref().map(Clock::now),
        };
        let object = version.object(key);
        objects.entry(key.clone()).or_default().push(version);
        object
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<Version>>> {
        held(&self.objects)
    }

    /// Every version under `prefix`, delete markers aside, the newest of a key first.
    fn under(&self, prefix: Option<&Key>, hidden: bool) -> Vec<Object> {
        let objects = self.objects();
        let keys = objects
            .iter()
            .filter(|(key, _)| prefix.is_none_or(|prefix| key.is_under(prefix)));
        keys.flat_map(|(key, versions)| {
            let shown = if hidden { versions.len() } else { 1 };
            let newest = versions.iter().rev().take(shown);
            newest
                .filter(|version| version.bytes.is_some())
                .map(|version| version.object(key))
        })
        .collect()
    }
}

impl Version {
    fn object(&self, key: &Key) -> Object {
        let len = self.bytes.as_ref().map_or(0, Bytes::len);
        let mut object = Object::new(key.clone(), len as u64);
        object.version = self.name.clone();
        object.lock_until = self.lock_until;
        object.modified = self.modified;
        object
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object> {
        if options.retain_until.is_some() && self.clock.is_none() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{self} cannot lock `{key}`"),
            ));
        }
        let at = Locator::from(key);
        if find(&self.objects(), &at).is_ok() {
            return Err(taken(key));
        }
        let bytes = data.collect(usize::MAX).await?;
        let mut objects = self.objects();
        if find(&objects, &at).is_ok() {
            return Err(taken(key));
        }
        Ok(self.push(&mut objects, key, Some(bytes), options.retain_until))
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        let objects = self.objects();
        let (_, bytes) = find(&objects, at)?;
        let Some(range) = range else {
            return Ok(ByteStream::from_bytes(bytes.clone()));
        };
        if range.start > range.end || range.end > bytes.len() as u64 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "bytes {}..{} are not within `{}`, which has {}",
                    range.start,
                    range.end,
                    at.key,
                    bytes.len()
                ),
            ));
        }
        let range = range.start as usize..range.end as usize;
        Ok(ByteStream::from_bytes(bytes.slice(range)))
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        Ok(find(&self.objects(), at)?.0.object(&at.key))
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        let mut objects = self.objects();
        let Ok((version, _)) = find(&objects, at) else {
            return Ok(());
        };
        let locked = |until: &SystemTime| self.clock.as_ref().is_some_and(|c| c.now() < *until);
        if let Some(until) = version.lock_until.filter(locked) {
            return Err(Error::new(
                ErrorKind::Locked,
                format!("`{}` is locked until {}", at.key, Stamp::from(until)),
            ));
        }
        let name = version.name.clone();
        if let Some(versions) = objects.get_mut(&at.key) {
            versions.retain(|version| version.name != name);
        }
        objects.retain(|_, versions| !versions.is_empty());
        Ok(())
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        stream::iter(self.under(prefix, false).into_iter().map(Ok)).boxed()
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        let depth = prefix.map_or(0, |prefix| prefix.as_str().split('/').count());
        let names: BTreeSet<String> = self
            .under(prefix, true)
            .iter()
            .filter_map(|object| object.key.as_str().split('/').nth(depth))
            .map(str::to_owned)
            .collect();
        stream::iter(names.into_iter().map(Ok)).boxed()
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        stream::iter(self.under(prefix, true).into_iter().map(Ok)).boxed()
    }

    async fn sweep(&self, _older_than: Duration) -> Result<Swept> {
        // A put that was abandoned left nothing.
        Ok(Swept::default())
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        Ok(self.free)
    }

    fn capabilities(&self) -> Capabilities {
        // What a put gathers is the store itself, not a buffer on the way to it.
        let all = Capabilities::new(0).with_conditional_put();
        match (&self.clock, self.versions) {
            (None, _) => all,
            (Some(_), false) => all.with_lock(),
            (Some(_), true) => all.with_lock().with_versions(),
        }
    }
}

/// The version that `at` names, or the visible one.
fn find<'a>(
    objects: &'a BTreeMap<Key, Vec<Version>>,
    at: &Locator,
) -> Result<(&'a Version, &'a Bytes)> {
    let versions = objects.get(&at.key).map_or(&[][..], Vec::as_slice);
    let version = match &at.version {
        None => versions.last(),
        name => versions.iter().find(|version| version.name == *name),
    };
    let found = version.and_then(|version| Some((version, version.bytes.as_ref()?)));
    found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no object `{}`", at.key)))
}

fn taken(key: &Key) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("object `{key}` exists already"),
    )
}

impl fmt::Display for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySink({} objects)", self.under(None, false).len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Hand(Mutex<Duration>);

    impl Clock for Hand {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + *held(&self.0)
        }
    }

    #[tokio::test]
    async fn a_lock_ends_at_its_time() {
        let clock = Arc::new(Hand::default());
        let sink = MemorySink::with_lock(clock.clone());
        let key = Key::parse("orders/a").unwrap();
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let options = PutOptions::default().retain_until(until);
        let data = ByteStream::from_bytes("locked");
        sink.put(&key, data, &options).await.unwrap();

        *held(&clock.0) = Duration::from_secs(59);
        let error = sink.delete(&(&key).into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(
            error.to_string().contains("1970-01-01T00:01:00Z"),
            "{error}"
        );

        *held(&clock.0) = Duration::from_secs(60);
        sink.delete(&(&key).into()).await.unwrap();
        assert_eq!(sink.under(None, true), []);
    }

    #[tokio::test]
    async fn a_hidden_object_is_among_the_versions_only() {
        let sink = MemorySink::with_versions(Arc::new(Hand::default()));
        let key = Key::parse("orders/a").unwrap();
        let data = ByteStream::from_bytes("first");
        let first = sink.put(&key, data, &PutOptions::default()).await.unwrap();
        sink.shadow(&key, "second");
        sink.hide(&key);
        assert_eq!(sink.under(None, false), []);
        let versions = sink.under(None, true);
        assert_eq!(versions.len(), 2);
        assert_eq!(versions[1], first);
        let gone = sink.stat(&(&key).into()).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        let back = sink.get(&first.locator(), None).await.unwrap();
        assert_eq!(back.collect(10).await.unwrap(), "first");
    }

    #[tokio::test]
    async fn debug_shows_no_bytes() {
        let sink = MemorySink::new();
        let key = Key::parse("a").unwrap();
        let data = ByteStream::from_bytes("canary");
        sink.put(&key, data, &PutOptions::default()).await.unwrap();
        assert_eq!(format!("{sink:?}"), "MemorySink(1 objects)");
    }
}
