//! Tasks: those that end with whoever waits for them, and those that go on without.

use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio_util::task::TaskTracker;

use crate::{Error, ErrorKind, Result};

/// Every task of this process, until its future is dropped.
static TASKS: LazyLock<TaskTracker> = LazyLock::new(|| {
    let tasks = TaskTracker::new();
    // It can be waited for, and takes more nevertheless.
    tasks.close();
    tasks
});

/// Undoes in the background what a future began that was dropped: for [`Drop`], which cannot wait.
///
/// Without a tokio runtime nothing is done. A runtime that ends cuts it off: wait for [`settled`]
/// first.
pub fn undo(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        TASKS.spawn_on(work, &runtime);
    }
}

/// Does `work` to its end, also when the future is dropped: for what must not stop half way.
///
/// Needs a tokio runtime. One that ends cuts it off: wait for [`settled`] first.
pub async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    spawn(work).await.unwrap_or_else(broke_off)
}

/// Waits until nothing goes on in this process: runs have ended, and what was given up is undone. An
/// upload is aborted, a half-made database dropped, a server that was made a replica is a primary again.
///
/// Call it before a runtime ends, and give it a time limit: it waits for servers that may not answer.
pub async fn settled() {
    TASKS.wait().await;
}

/// Runs `work` where it may block. It goes on when the future is dropped.
///
/// Needs a tokio runtime.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(broke_off)
}

/// A task that gave no answer: it panicked, or its runtime ended.
pub(crate) fn broke_off<T>(error: JoinError) -> Result<T> {
    let kind = match error.is_panic() {
        true => ErrorKind::Other,
        false => ErrorKind::Cancelled,
    };
    Err(Error::new(kind, "a task ended without an answer").with_source(error))
}

/// A task that [`settled`] waits for.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    TASKS.spawn(work)
}

/// Ends the task when dropped: a dropped future leaves nothing running.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}
