//! A lock keeps a version, not its visibility: what somebody hides must still come back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use backup_core::*;
use futures::TryStreamExt;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A signed job on a sink with versions and locks, and one backup of it.
async fn locked() -> (Job, MemorySink, Id) {
    let sink = MemorySink::with_versions(SystemClock);
    let signing = SigningKey::generate().unwrap();
    let trusted = TrustedKeys::new([signing.public()]);
    let job = Job::builder("orders")
        .source(MemorySource::new([("a", "first"), ("b", "second")]))
        .pipeline(Pipeline::unencrypted().sign(signing).trust(trusted))
        .sink("bucket", sink.clone())
        .lock(DAY)
        .build()
        .unwrap();
    let id = job.run(RunOptions::default()).await.unwrap().id;
    (job, sink, id)
}

async fn objects(sink: &MemorySink, id: &Id) -> Vec<Object> {
    let folder = Key::parse(format!("orders/{id}")).unwrap();
    sink.list(Some(&folder)).try_collect().await.unwrap()
}

async fn comes_back(job: &Job, id: &Id) {
    let target = MemoryTarget::new();
    job.restore(id, &target, RestoreRequest::default())
        .await
        .unwrap();
    assert_eq!(target.part("a").unwrap(), "first");
    assert_eq!(target.part("b").unwrap(), "second");
}

/// Every object of `id` is reported, and the backup comes back all the same.
async fn is_survived_and_reported(job: &Job, id: &Id, objects: &[Object], by: &str) {
    let history = job.history().await.unwrap();
    assert_eq!(history.backups.len(), 1);
    let told = Finding::Hidden {
        sink: "bucket".to_owned(),
        id: id.clone(),
    };
    assert_eq!(history.findings, [told]);
    assert_eq!(job.find("latest").await.unwrap().manifest.id, *id);
    let verification = &job.verify(id, None).await.unwrap()[0];
    let mut problems = Vec::new();
    for problem in &verification.problems {
        assert!(problem.error.chain().contains(by), "{:?}", problem.error);
        problems.push(&problem.key);
    }
    let all: Vec<&Key> = objects.iter().map(|object| &object.key).collect();
    assert_eq!(problems, all);
    comes_back(job, id).await;
}

#[tokio::test]
async fn every_object_of_a_backup_is_locked() {
    let (job, sink, id) = locked().await;
    let objects = objects(&sink, &id).await;
    assert!(objects.len() >= 7, "{objects:?}");
    for object in objects {
        assert!(object.lock_until.unwrap() > SystemClock.now() + DAY / 2);
        let error = sink.delete(&object.locator()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
    }
    comes_back(&job, &id).await;
}

#[tokio::test]
async fn delete_markers_on_everything_hide_nothing() {
    let (job, sink, id) = locked().await;
    let objects = objects(&sink, &id).await;
    for object in &objects {
        sink.hide(&object.key);
    }
    is_survived_and_reported(&job, &id, &objects, "a delete marker").await;
}

#[tokio::test]
async fn newer_versions_on_everything_replace_nothing() {
    let (job, sink, id) = locked().await;
    let objects = objects(&sink, &id).await;
    for object in &objects {
        sink.shadow(&object.key, "forged");
    }
    is_survived_and_reported(&job, &id, &objects, "a newer version").await;
}

/// Where nothing is signed, a newer version of a manifest may look like one.
#[tokio::test]
async fn another_manifest_than_the_one_that_was_written_is_not_restored() {
    let sink = MemorySink::with_versions(SystemClock);
    let job = |text: &'static str| {
        let source = MemorySource::new([("a", text)]);
        let job = Job::builder("orders").source(source);
        let job = job.pipeline(Pipeline::unencrypted());
        job.sink("bucket", sink.clone()).build().unwrap()
    };
    let [old, new] = [job("old"), job("new")];
    let old = old.run(RunOptions::default()).await.unwrap().id;
    let id = new.run(RunOptions::default()).await.unwrap().id;
    let key = |id: &Id| Key::parse(format!("orders/{id}/manifest.json")).unwrap();
    let read = async |id: &Id| -> serde_json::Value {
        let data = sink.get(&(&key(id)).into(), None).await.unwrap();
        serde_json::from_slice(&data.collect(usize::MAX).await.unwrap()).unwrap()
    };
    let mut forged = read(&id).await;
    forged["parts"] = read(&old).await["parts"].take();
    sink.shadow(&key(&id), forged.to_string());
    let target = MemoryTarget::new();
    let restored = new.restore(&id, &target, RestoreRequest::default()).await;
    let error = restored.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.chain().contains("another manifest"), "{error:?}");
    assert!(target.part("a").is_none());
}

/// Whatever the clock of whoever spoke before.
#[tokio::test]
async fn the_last_word_on_a_hold_counts() {
    let (job, _, id) = locked().await;
    let held = async || job.find("latest").await.unwrap().held;
    for _ in 0..3 {
        job.hold(&id, "audit").await.unwrap();
        assert_eq!(held().await.as_deref(), Some("audit"));
        job.release(&id).await.unwrap();
        assert_eq!(held().await, None);
    }
}

#[tokio::test]
async fn a_hidden_hold_still_holds() {
    let (job, sink, id) = locked().await;
    job.hold(&id, "audit").await.unwrap();
    let records: Vec<Object> = sink
        .list(Some(&Key::parse("orders/attestations").unwrap()))
        .try_collect()
        .await
        .unwrap();
    assert!(!records.is_empty());
    for record in records {
        sink.hide(&record.key);
    }
    let history = job.history().await.unwrap();
    assert_eq!(history.backups[0].held.as_deref(), Some("audit"));
}

#[tokio::test]
async fn a_lock_that_no_sink_can_give_is_refused() {
    let build = |sink| {
        let job = Job::builder("orders").sink("here", sink);
        job.pipeline(Pipeline::unencrypted()).lock(DAY).build()
    };
    let error = build(MemorySink::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    build(MemorySink::with_lock(SystemClock)).unwrap();
}
