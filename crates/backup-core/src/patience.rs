//! A sink that does not answer has failed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::time::timeout;

use crate::{
    ByteStream, Capabilities, Check, Error, ErrorKind, Key, Locator, Object, PutOptions, Result,
    Sink, Swept, async_trait,
};

/// Gives every answer of a sink, and every item of one, a time to come in.
///
/// A `put` waits for its data as long as the data takes: who feeds it watches that it goes on.
#[derive(Debug)]
pub(crate) struct Patience {
    inner: Arc<dyn Sink>,
    limit: Duration,
}

impl Patience {
    pub(crate) fn new(inner: Arc<dyn Sink>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = timeout(self.limit, answer).await;
        answer.unwrap_or_else(|_| Err(silent(self.limit)))
    }

    fn items<'a, T: Send + 'a>(
        &self,
        items: impl Stream<Item = Result<T>> + Send + 'a,
    ) -> BoxStream<'a, Result<T>> {
        let limit = self.limit;
        stream::unfold(Some(Box::pin(items)), move |items| async move {
            let mut items = items?;
            match timeout(limit, items.next()).await {
                Ok(item) => Some((item?, Some(items))),
                Err(_) => Some((Err(silent(limit)), None)),
            }
        })
        .boxed()
    }
}

fn silent(limit: Duration) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the sink did not answer for {} seconds",
            limit.as_secs_f64()
        ),
    )
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Sink for Patience {
    async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object> {
        self.inner.put(key, data, options).await
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        let data = self.within(self.inner.get(at, range)).await?;
        Ok(ByteStream::new(self.items(data)))
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        self.within(self.inner.stat(at)).await
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        self.within(self.inner.delete(at)).await
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.items(self.inner.list(prefix))
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        self.items(self.inner.children(prefix))
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.items(self.inner.versions(prefix))
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.inner.sweep(older_than).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        self.within(self.inner.free_space()).await
    }

    async fn examine(&self) -> Result<Vec<Check>> {
        self.inner.examine().await
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
