//! Backups that build on earlier ones.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::retention::KeepLast;
use backup_core::*;
use bytes::Bytes;
use futures::TryStreamExt;

/// Lines that become more. A full backup has all of them as one part, an incremental those since.
#[derive(Clone, Debug, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn push(&self, line: &str) {
        self.0.lock().unwrap().push(format!("{line}\n"));
    }
}

#[async_trait]
impl Source for Journal {
    fn kind(&self) -> &str {
        "journal"
    }

    async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
        let lines = self.0.lock().unwrap().clone();
        let place = request.state_dir.as_ref().unwrap().join("lines");
        let known = fs::read_to_string(&place).unwrap_or_default();
        let mut from = 0;
        if let Some(parent) = &request.parent
            && let Some((id, count)) = known.split_once(' ')
            && id == parent.id.as_str()
        {
            out.build_on(parent)?;
            from = count.parse().unwrap();
        }
        let name = format!("lines-{from}");
        let bytes = Bytes::from(lines[from..].concat());
        out.write(&name, ByteStream::from_bytes(bytes)).await?;
        fs::write(place, format!("{} {}", request.id, lines.len())).unwrap();
        Ok(Facts::new())
    }

    fn incremental(&self) -> bool {
        true
    }
}

struct Fixture {
    journal: Journal,
    sinks: [MemorySink; 2],
    state: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self {
            journal: Journal::default(),
            sinks: [MemorySink::new(), MemorySink::new()],
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn job(&self) -> Job {
        let [here, there] = self.sinks.clone();
        Job::builder("journal")
            .source(self.journal.clone())
            .pipeline(Pipeline::unencrypted())
            .sink("here", here)
            .sink("there", there)
            .incremental(true)
            .state_dir(self.state.path())
            .max_run(std::time::Duration::ZERO)
            .retention(KeepLast::new(1).unwrap())
            .build()
            .unwrap()
    }

    /// One line more, and a backup.
    async fn run(&self, line: &str) -> Arc<Manifest> {
        self.journal.push(line);
        let report = self.job().run(RunOptions::default()).await.unwrap();
        assert_eq!(report.plain_bytes, report.stored_bytes);
        let found = self.job().find(report.id.as_str()).await.unwrap();
        Arc::clone(&found.manifest)
    }
}

fn parts(manifest: &Manifest) -> Vec<&str> {
    let parts = manifest.parts.iter();
    parts.map(|part| part.name.as_str()).collect()
}

async fn restored(job: &Job, id: &Id) -> Result<String> {
    let target = MemoryTarget::of_kind("journal");
    job.restore(id, &target, RestoreRequest::default()).await?;
    let parts = target.parts();
    Ok(parts
        .values()
        .map(|part| String::from_utf8(part.to_vec()).unwrap())
        .collect())
}

/// A backup whose manifest is gone is no leftover of a failed run while others are built on it.
#[tokio::test]
async fn what_others_are_built_on_is_not_swept() {
    let it = Fixture::new();
    let full = it.run("one").await;
    let second = it.run("two").await;
    let manifest = Key::parse(format!("journal/{}/manifest.json", full.id)).unwrap();
    for sink in &it.sinks {
        sink.delete(&Locator::from(&manifest)).await.unwrap();
    }
    it.job().prune(&PruneOptions::default()).await.unwrap();
    let back = restored(&it.job(), &second.id).await.unwrap();
    assert_eq!(back, "one\ntwo\n");
}

#[tokio::test]
async fn each_backup_comes_back_with_all_that_it_builds_on() {
    let it = Fixture::new();
    let full = it.run("one").await;
    let second = it.run("two").await;
    let third = it.run("three").await;
    assert_eq!(full.parent, None);
    assert_eq!(second.parent.as_ref(), Some(&full.id));
    assert_eq!(third.parent.as_ref(), Some(&second.id));
    assert_eq!(parts(&third), ["lines-0", "lines-1", "lines-2"]);
    // Every byte is kept once.
    assert_eq!(
        (third.plain_bytes(), third.stored_bytes()),
        ("one\ntwo\nthree\n".len() as u64, "three\n".len() as u64)
    );
    let job = it.job();
    for (manifest, lines) in [
        (&full, "one\n"),
        (&second, "one\ntwo\n"),
        (&third, "one\ntwo\nthree\n"),
    ] {
        assert_eq!(restored(&job, &manifest.id).await.unwrap(), lines);
        for found in job.verify(&manifest.id, None).await.unwrap() {
            assert!(found.problems.is_empty(), "{:?}", found.problems);
        }
    }
    // What is kept needs the others.
    for report in job.prune(&PruneOptions::default()).await.unwrap() {
        assert!(report.deleted.is_empty(), "{:?}", report.deleted);
    }
    assert_eq!(
        restored(&job, &third.id).await.unwrap(),
        "one\ntwo\nthree\n"
    );
}

#[tokio::test]
async fn a_backup_builds_on_nothing_that_a_sink_lacks() {
    let it = Fixture::new();
    let full = it.run("one").await;
    let second = it.run("two").await;
    // The first link is gone in one of both.
    let folder = Key::parse(format!("journal/{}", full.id)).unwrap();
    let objects: Vec<_> = it.sinks[1].list(Some(&folder)).try_collect().await.unwrap();
    assert!(!objects.is_empty());
    for object in objects {
        it.sinks[1].delete(&object.locator()).await.unwrap();
    }
    let third = it.run("three").await;
    assert_eq!(
        (third.parent.as_ref(), parts(&third)),
        (None, vec!["lines-0"])
    );
    assert_eq!(
        restored(&it.job(), &third.id).await.unwrap(),
        "one\ntwo\nthree\n"
    );
    let there = RestoreRequest::default().from("there");
    let target = MemoryTarget::of_kind("journal");
    let job = it.job();
    let error = job.restore(&second.id, &target, there).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert!(target.parts().is_empty());
}

#[tokio::test]
async fn a_backup_builds_on_nothing_that_this_host_does_not_know() {
    let it = Fixture::new();
    it.run("one").await;
    remove(&it.state.path().join("journal/lines"));
    assert_eq!(it.run("two").await.parent, None);
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_damaged_ancestor_fails_what_builds_on_it() {
    let it = Fixture::new();
    let full = it.run("one").await;
    let second = it.run("two").await;
    let key = &full.parts[0].objects[0].key;
    for sink in &it.sinks {
        sink.shadow(key, "onE\n");
    }
    let job = it.job();
    for found in job.verify(&second.id, None).await.unwrap() {
        assert!(
            found.problems.iter().any(|problem| problem.key == *key),
            "{:?}",
            found.problems
        );
    }
    let error = restored(&job, &second.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}

#[tokio::test]
async fn after_thirty_comes_a_full_one() {
    let it = Fixture::new();
    let mut fulls = Vec::new();
    for n in 1..=61 {
        if it.run("line").await.parent.is_none() {
            fulls.push(n);
        }
    }
    assert_eq!(fulls, [1, 31, 61]);
}

#[test]
fn a_job_that_cannot_be_incremental_is_refused() {
    let refused = |job: JobBuilder, why: &str| {
        let error = job.incremental(true).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(why), "{error}");
    };
    let job = || {
        Job::builder("j")
            .pipeline(Pipeline::unencrypted())
            .sink("s", MemorySink::with_lock(SystemClock))
    };
    let journal = Journal::default;
    refused(job().source(journal()), "state_dir");
    let full = MemorySource::new([("a", "b")]);
    refused(job().source(full).state_dir("/s"), "full backups");
    let locked = job().source(journal()).state_dir("/s");
    refused(locked.lock(std::time::Duration::from_secs(9)), "lock");
}
