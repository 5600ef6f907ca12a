//! What was written, whatever somebody put on top of it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::{
    ByteStream, Capabilities, Check, Error, ErrorKind, Key, Locator, Object, PutOptions, Result,
    Sink, Swept, async_trait,
};

/// A sink with versions, seen as it was written: reads of a key give its oldest version.
///
/// Nothing of ours writes a key twice, so whatever came later, another version or a delete
/// marker, was put there by somebody else. A lock keeps the version, not its visibility: without
/// this, hiding a locked backup would do as well as deleting it.
///
/// Reading by key costs one more request than reading what is visible.
#[derive(Debug)]
pub(crate) struct Originals(Arc<dyn Sink>);

/// [`Originals`] of a sink with versions; another sink is what it is.
pub(crate) fn originals(sink: &Arc<dyn Sink>) -> Arc<dyn Sink> {
    match sink.capabilities().versions {
        true => Arc::new(Originals(Arc::clone(sink))),
        false => Arc::clone(sink),
    }
}

/// Which of the objects `written` under `prefix`, as [`Originals`] lists them, something hides, and
/// what.
pub(crate) async fn hidden(
    sink: &dyn Sink,
    prefix: &Key,
    written: &BTreeMap<Key, Object>,
) -> Result<Vec<(Key, &'static str)>> {
    if !sink.capabilities().versions {
        return Ok(Vec::new());
    }
    let visible: BTreeMap<Key, Object> = sink
        .list(Some(prefix))
        .map_ok(|object| (object.key.clone(), object))
        .try_collect()
        .await?;
    let hidden = written.iter().filter_map(|(key, oldest)| {
        let by = match visible.get(key) {
            None => "a delete marker",
            Some(object) if object.version != oldest.version => "a newer version",
            Some(_) => return None,
        };
        Some((key.clone(), by))
    });
    Ok(hidden.collect())
}

async fn oldest(sink: &dyn Sink, prefix: Option<&Key>) -> Result<BTreeMap<Key, Object>> {
    // The newest of a key comes first, so that its oldest is what stays.
    sink.versions(prefix)
        .map_ok(|object| (object.key.clone(), object))
        .try_collect()
        .await
}

impl Originals {
    async fn locate(&self, at: &Locator) -> Result<Locator> {
        if at.version.is_some() {
            return Ok(at.clone());
        }
        let found = oldest(&*self.0, Some(&at.key)).await?.remove(&at.key);
        let missing = || Error::new(ErrorKind::NotFound, format!("no object `{}`", at.key));
        found.map(|object| object.locator()).ok_or_else(missing)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Sink for Originals {
    async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object> {
        self.0.put(key, data, options).await
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        self.0.get(&self.locate(at).await?, range).await
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        self.0.stat(&self.locate(at).await?).await
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        self.0.delete(at).await
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        let prefix = prefix.cloned();
        let objects = async move {
            let found = oldest(&*self.0, prefix.as_ref()).await?;
            Ok::<_, Error>(stream::iter(found.into_values().map(Ok)))
        };
        stream::once(objects).try_flatten().boxed()
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        self.0.children(prefix)
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.0.versions(prefix)
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.0.sweep(older_than).await
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        self.0.free_space().await
    }

    async fn examine(&self) -> Result<Vec<Check>> {
        self.0.examine().await
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

impl fmt::Display for Originals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
