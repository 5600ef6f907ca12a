//! A sink, a source and a target in memory: for examples, tests and simulations. Each is a
//! handle, clones share what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};

use crate::{
    ByteStream, Capabilities, Clock, Error, ErrorKind, Facts, Key, Locator, Object, Occupancy,
    PartReader, PartWriter, PutOptions, Request, RestoreOptions, RestoreStep, Result, Sink, Source,
    Stamp, StockCommand, Swept, Target,
};

/// A sink that keeps its objects in memory, and keeps every promise of [`Sink`] but to outlive
/// the process.
#[derive(Clone, Default)]
pub struct MemorySink {
    objects: Arc<Mutex<BTreeMap<Key, Stored>>>,
    clock: Option<Arc<dyn Clock>>,
}

struct Stored {
    bytes: Bytes,
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
            objects: Arc::default(),
            clock: Some(Arc::new(clock)),
        }
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Stored>> {
        held(&self.objects)
    }

    fn under(&self, prefix: Option<&Key>) -> Vec<Object> {
        self.objects()
            .iter()
            .filter(|(key, _)| prefix.is_none_or(|prefix| key.is_under(prefix)))
            .map(|(key, stored)| stored.object(key))
            .collect()
    }
}

impl Stored {
    fn object(&self, key: &Key) -> Object {
        let mut object = Object::new(key.clone(), self.bytes.len() as u64);
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
        if self.objects().contains_key(key) {
            return Err(taken(key));
        }
        let bytes = data.collect(usize::MAX).await?;
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Err(taken(key));
        }
        let stored = Stored {
            bytes,
            lock_until: options.retain_until,
            modified: self.clock.as_ref().map(Clock::now),
        };
        let object = stored.object(key);
        objects.insert(key.clone(), stored);
        Ok(object)
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        let objects = self.objects();
        let bytes = &find(&objects, at)?.bytes;
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
        Ok(find(&self.objects(), at)?.object(&at.key))
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        let mut objects = self.objects();
        let Ok(stored) = find(&objects, at) else {
            return Ok(());
        };
        let locked = |until: &SystemTime| self.clock.as_ref().is_some_and(|c| c.now() < *until);
        if let Some(until) = stored.lock_until.filter(locked) {
            return Err(Error::new(
                ErrorKind::Locked,
                format!("`{}` is locked until {}", at.key, Stamp::from(until)),
            ));
        }
        objects.remove(&at.key);
        Ok(())
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        stream::iter(self.under(prefix).into_iter().map(Ok)).boxed()
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        let depth = prefix.map_or(0, |prefix| prefix.as_str().split('/').count());
        let names: BTreeSet<String> = self
            .under(prefix)
            .iter()
            .filter_map(|object| object.key.as_str().split('/').nth(depth))
            .map(str::to_owned)
            .collect();
        stream::iter(names.into_iter().map(Ok)).boxed()
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.list(prefix)
    }

    async fn sweep(&self, _older_than: Duration) -> Result<Swept> {
        // A put that was abandoned left nothing.
        Ok(Swept::default())
    }

    fn capabilities(&self) -> Capabilities {
        // What a put gathers is the store itself, not a buffer on the way to it.
        let all = Capabilities::new(0).with_conditional_put();
        match self.clock {
            Some(_) => all.with_lock(),
            None => all,
        }
    }
}

fn find<'a>(objects: &'a BTreeMap<Key, Stored>, at: &Locator) -> Result<&'a Stored> {
    // There are no versions here, so that no object has the name of one.
    let stored = objects.get(&at.key).filter(|_| at.version.is_none());
    stored.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no object `{}`", at.key)))
}

fn taken(key: &Key) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("object `{key}` exists already"),
    )
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySink({} objects)", self.objects().len())
    }
}

/// A source with parts in memory, of kind `memory`.
#[derive(Clone)]
pub struct MemorySource {
    parts: Vec<(String, Bytes)>,
    facts: Facts,
}

impl MemorySource {
    /// These parts, by name, written in this order.
    pub fn new<N: Into<String>, B: Into<Bytes>>(parts: impl IntoIterator<Item = (N, B)>) -> Self {
        let parts = parts.into_iter();
        Self {
            parts: parts
                .map(|(name, bytes)| (name.into(), bytes.into()))
                .collect(),
            facts: Facts::new(),
        }
    }

    /// What the source claims to know at the end.
    #[must_use]
    pub fn facts(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }

    #[cfg(feature = "testing")]
    pub(crate) fn contents(&self) -> (&[(String, Bytes)], &Facts) {
        (&self.parts, &self.facts)
    }
}

#[async_trait]
impl Source for MemorySource {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn backup(&self, _request: &Request, out: &PartWriter) -> Result<Facts> {
        for (name, bytes) in &self.parts {
            out.write(name, ByteStream::from_bytes(bytes.clone()))
                .await?;
        }
        Ok(self.facts.clone())
    }

    fn restore_steps(&self) -> Vec<RestoreStep> {
        let step = |(name, _): &(String, Bytes)| RestoreStep {
            part: name.clone(),
            what: "write into a file".to_owned(),
            command: StockCommand::new(["dd", &format!("of=$TARGET/{name}"), "status=none"]),
        };
        self.parts.iter().map(step).collect()
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySource({} parts)", self.parts.len())
    }
}

/// A target that collects the parts of a backup of any one kind, and publishes all or none.
#[derive(Clone)]
pub struct MemoryTarget {
    kind: String,
    parts: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemoryTarget {
    /// An empty target for what a [`MemorySource`] wrote.
    pub fn new() -> Self {
        Self::of_kind("memory")
    }

    /// An empty target that takes the backups of another kind of source.
    pub fn of_kind(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            parts: Arc::default(),
        }
    }

    /// All that the last restore brought back, by name.
    pub fn parts(&self) -> BTreeMap<String, Bytes> {
        held(&self.parts).clone()
    }

    /// One part of it.
    pub fn part(&self, name: &str) -> Option<Bytes> {
        held(&self.parts).get(name).cloned()
    }
}

impl Default for MemoryTarget {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Target for MemoryTarget {
    fn kind(&self) -> &str {
        &self.kind
    }

    async fn occupancy(&self) -> Result<Occupancy> {
        let parts = held(&self.parts);
        if parts.is_empty() {
            return Ok(Occupancy::Empty);
        }
        let bytes: usize = parts.values().map(Bytes::len).sum();
        let holds = format!("{} parts, {bytes} bytes", parts.len());
        Ok(Occupancy::Holds(holds))
    }

    fn publishes_atomically(&self) -> bool {
        true
    }

    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        if let Some(name) = options.extra.keys().next() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{self} knows no option `{name}`"),
            ));
        }
        let mut all = BTreeMap::new();
        for name in parts.names() {
            let bytes = parts.open(name).await?.collect(usize::MAX).await?;
            all.insert(name.to_owned(), bytes);
        }
        *held(&self.parts) = all;
        Ok(())
    }
}

impl fmt::Display for MemoryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for MemoryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryTarget({} parts)", held(&self.parts).len())
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
        assert_eq!(sink.under(None), []);
    }

    #[tokio::test]
    async fn debug_shows_no_bytes() {
        let sink = MemorySink::new();
        let key = Key::parse("a").unwrap();
        let data = ByteStream::from_bytes("canary");
        sink.put(&key, data, &PutOptions::default()).await.unwrap();
        let source = MemorySource::new([("a", "canary")]);
        assert_eq!(
            format!("{sink:?} {source:?}"),
            "MemorySink(1 objects) MemorySource(1 parts)"
        );
    }
}
