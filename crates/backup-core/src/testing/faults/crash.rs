//! What a crash leaves behind.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::sync::watch;

use crate::{
    ByteStream, Capabilities, Check, Key, Locator, Object, PutOptions, Result, Sink, Swept,
};

/// A machine that will die at a chosen moment, with all its [`CrashSink`]s at once.
///
/// Every put has three moments: before it begins, when all its data came and it is not durable,
/// and when it is durable and nobody was told. Every delete has two, before and after. At the
/// fatal moment everything stops: no call on any of the sinks returns again. The test then drops
/// what was running, and looks at the sinks inside with new eyes: they hold what was durable.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// # use backup_core::testing::faults::Crash;
/// # use backup_core::{ByteStream, Key, MemorySink, PutOptions, Sink};
/// # async fn work(sink: impl Sink) {
/// #     let (key, data) = (Key::parse("a").unwrap(), ByteStream::from_bytes("bytes"));
/// #     sink.put(&key, data, &PutOptions::default()).await.unwrap();
/// # }
/// # let mut left = Vec::new();
/// for moment in 1.. {
///     let (durable, crash) = (MemorySink::new(), Crash::at(moment));
///     tokio::select! {
///         () = work(crash.over(durable.clone())) => break, // got through: no more moments
///         () = crash.happened() => {}
///     }
///     // Whatever `work` was, `durable` must be in order now.
/// #   let at = Key::parse("a").unwrap().into();
/// #   left.push(durable.stat(&at).await.is_ok());
/// }
/// # assert_eq!(left, [false, false, true]);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Crash(Arc<watch::Sender<u64>>);

impl Crash {
    /// Dies at the `moment`-th moment, counted from 1.
    pub fn at(moment: u64) -> Self {
        Self(Arc::new(watch::Sender::new(moment)))
    }

    /// A sink of this machine.
    pub fn over<S: Sink>(&self, inner: S) -> CrashSink<S> {
        CrashSink {
            inner,
            crash: self.clone(),
        }
    }

    /// Waits for the crash.
    pub async fn happened(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.subscribe().wait_for(|left| *left == 0).await;
    }

    /// Whether it happened: 1 or 0.
    pub fn fired(&self) -> u64 {
        u64::from(*self.0.borrow() == 0)
    }

    /// One of the moments. Does not return from the fatal one, nor after it.
    async fn moment(&self) {
        self.0.send_modify(|left| *left = left.saturating_sub(1));
        self.alive().await;
    }

    async fn alive(&self) {
        if self.fired() == 1 {
            std::future::pending::<()>().await;
        }
    }
}

/// A sink of a machine that will crash. See [`Crash`].
#[derive(Clone, Debug)]
pub struct CrashSink<S> {
    inner: S,
    crash: Crash,
}

impl<S: Sink> CrashSink<S> {
    fn listing<'a, T: 'a>(&'a self, items: impl Stream<Item = T> + Send + 'a) -> BoxStream<'a, T> {
        let alive = async move {
            self.crash.alive().await;
            items
        };
        alive.flatten_stream().boxed()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Sink> Sink for CrashSink<S> {
    async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object> {
        self.crash.moment().await;
        let crash = self.crash.clone();
        let last = stream::once(async move { crash.moment().await }).filter_map(async |()| None);
        let data = ByteStream::new(data.chain(last));
        let object = self.inner.put(key, data, options).await?;
        self.crash.moment().await;
        Ok(object)
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        self.crash.alive().await;
        self.inner.get(at, range).await
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        self.crash.alive().await;
        self.inner.stat(at).await
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        self.crash.moment().await;
        self.inner.delete(at).await?;
        self.crash.moment().await;
        Ok(())
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.listing(self.inner.list(prefix))
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        self.listing(self.inner.children(prefix))
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.listing(self.inner.versions(prefix))
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.crash.alive().await;
        self.inner.sweep(older_than).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        self.inner.free_space().await
    }

    async fn examine(&self) -> Result<Vec<Check>> {
        self.inner.examine().await
    }
}

impl<S: Sink> fmt::Display for CrashSink<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}
