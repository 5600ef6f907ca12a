//! What the macros expand to.

use std::time::Duration;

/// A case that hangs fails under its own name.
pub async fn within_minutes(case: impl Future<Output = ()>) {
    let limit = Duration::from_secs(300);
    let done = tokio::time::timeout(limit, case).await;
    done.expect("the case hangs: it took more than five minutes");
}
