//! Backups and restores as the tests want them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use backup_core::{
    Id, Job, MemorySink, Pipeline, RestoreRequest, Result, RunOptions, Sink, Source, Target,
};
use futures::StreamExt;

pub(crate) fn job(source: impl Source, sink: &MemorySink) -> Job {
    Job::builder("job")
        .source(source)
        .pipeline(Pipeline::unencrypted())
        .sink("memory", sink.clone())
        .build()
        .unwrap()
}

/// Backs up. After a failure there must be no document of it: parts without a manifest are no
/// backup, and the next sweep takes them.
pub(crate) async fn back_up(source: impl Source, sink: &MemorySink) -> Result<Id> {
    let known = documents(sink).await;
    let outcome = job(source, sink).run(RunOptions::default()).await;
    if outcome.is_err() {
        assert_eq!(
            documents(sink).await,
            known,
            "a failed backup left something"
        );
    }
    outcome.map(|report| report.id)
}

async fn documents(sink: &MemorySink) -> Vec<String> {
    let objects: Vec<_> = sink.list(None).collect().await;
    let keys = objects.into_iter().map(|object| object.unwrap().key);
    keys.map(|key| key.to_string())
        .filter(|key| !key.ends_with(".sql") && !key.ends_with(".dump"))
        .collect()
}

/// Backs up with `source` and restores into `target`.
pub(crate) async fn there_and_back(source: impl Source, target: &dyn Target) -> Result<()> {
    let sink = MemorySink::new();
    let id = back_up(source, &sink).await?;
    restore(&sink, &id, target).await
}

pub(crate) async fn restore(sink: &MemorySink, id: &Id, target: &dyn Target) -> Result<()> {
    let job = job(backup_core::MemorySource::new([("", "")]), sink);
    let request = RestoreRequest::default();
    job.restore(id, target, request).await.map(drop)
}

/// The error that a backup ends with.
pub(crate) async fn failure(source: impl Source) -> backup_core::Error {
    back_up(source, &MemorySink::new()).await.unwrap_err()
}

/// An executable file.
pub(crate) fn script(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
}
