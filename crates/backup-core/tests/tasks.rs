//! What goes on when nobody waits any more.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup_core::*;
use futures::stream::BoxStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// Its uploads never end, and take a moment to be aborted.
#[derive(Clone, Debug, Default)]
struct Uploads {
    inner: MemorySink,
    begun: Arc<Notify>,
    aborted: Arc<AtomicBool>,
}

impl std::fmt::Display for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

struct Upload(Arc<AtomicBool>);

impl Drop for Upload {
    fn drop(&mut self) {
        let aborted = Arc::clone(&self.0);
        undo(async move {
            sleep(Duration::from_millis(50)).await;
            aborted.store(true, Ordering::Relaxed);
        });
    }
}

#[async_trait]
impl Sink for Uploads {
    async fn put(&self, _: &Key, _data: ByteStream, _: &PutOptions) -> Result<Object> {
        let _upload = Upload(Arc::clone(&self.aborted));
        self.begun.notify_one();
        std::future::pending().await
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        self.inner.get(at, range).await
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        self.inner.stat(at).await
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        self.inner.delete(at).await
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.inner.list(prefix)
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        self.inner.children(prefix)
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.inner.versions(prefix)
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        self.inner.sweep(older_than).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_dropped_has_settled_when_its_uploads_are_aborted() {
    let uploads = Uploads::default();
    let job = Job::builder("orders")
        .source(MemorySource::new([("a.bin", "seven b")]))
        .pipeline(Pipeline::unencrypted())
        .sink("uploads", uploads.clone())
        .build()
        .unwrap();
    let mut run = Box::pin(job.run(RunOptions::default()));
    tokio::select! {
        report = &mut run => panic!("the run ended: {report:?}"),
        () = uploads.begun.notified() => {}
    }
    drop(run);
    timeout(Duration::from_secs(30), settled()).await.unwrap();
    assert!(uploads.aborted.load(Ordering::Relaxed));
}

#[tokio::test]
async fn what_is_to_be_finished_goes_on_without_whoever_asked() {
    let done = Arc::new(AtomicBool::new(false));
    let work = {
        let done = Arc::clone(&done);
        finish(async move {
            tokio::task::yield_now().await;
            done.store(true, Ordering::Relaxed);
            Ok(())
        })
    };
    assert!(futures::poll!(Box::pin(work)).is_pending());
    assert!(!done.load(Ordering::Relaxed));
    timeout(Duration::from_secs(30), settled()).await.unwrap();
    assert!(done.load(Ordering::Relaxed));
}

#[test]
fn without_a_runtime_nothing_can_be_undone_and_nothing_fails() {
    drop(Upload(Arc::default()));
}
