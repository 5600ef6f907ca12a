//! What a sink that shows less than it did, or more than it should, cannot hide.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use backup_core::retention::KeepLast;
use backup_core::{
    ByteStream, ErrorKind, Finding, Job, Key, MemorySink, MemorySource, MemoryTarget, Pipeline,
    PruneOptions, PutOptions, RestoreRequest, Result, RunOptions, Sink, TrustedKeys, Verifier,
};
use futures::TryStreamExt;
use lifebelt_tests::{Keys, job};

struct Three {
    job: Job,
    ids: Vec<backup_core::Id>,
    folder: tempfile::TempDir,
}

/// A job with a state folder that keeps two, and three backups of it.
async fn three(keys: &Keys) -> Three {
    let folder = tempfile::tempdir().unwrap();
    let job = job("orders", keys, &folder.path().join("sink"))
        .source(MemorySource::new([("rows.csv", "1,anvil\n")]))
        .retention(KeepLast::new(2).unwrap())
        .state_dir(folder.path().join("state"))
        .build()
        .unwrap();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(job.run(RunOptions::default()).await.unwrap().id);
    }
    Three { job, ids, folder }
}

impl Three {
    fn at(&self, n: usize) -> std::path::PathBuf {
        self.folder
            .path()
            .join("sink/orders")
            .join(self.ids[n].as_str())
    }

    async fn findings(&self) -> Vec<Finding> {
        self.job.history().await.unwrap().findings
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test]
async fn an_untouched_history_has_no_findings() {
    let three = three(&Keys::new()).await;
    assert_eq!(three.findings().await, []);
    assert_eq!(three.job.find("latest").await.unwrap().manifest.sequence, 3);
}

#[tokio::test]
async fn a_removed_newest_manifest_is_reported_and_latest_is_no_older_one() {
    let three = three(&Keys::new()).await;
    fs::remove_file(three.at(2).join("manifest.json")).unwrap();
    let findings = three.findings().await;
    assert!(
        matches!(&findings[..], [Finding::RolledBack { found: 2, .. }]),
        "{findings:?}"
    );
    assert_eq!(
        three.job.find("latest").await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    // By its own name an older one is still restored.
    let older = three
        .job
        .find(three.ids[1].as_str())
        .await
        .unwrap()
        .manifest
        .id
        .clone();
    three
        .job
        .restore(&older, &MemoryTarget::new(), RestoreRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rolled_back_sink_is_reported_stops_pruning_and_stays_reported() {
    let keys = Keys::new();
    let three = three(&keys).await;
    let (sink, earlier) = (
        three.folder.path().join("sink"),
        three.folder.path().join("earlier"),
    );
    copy_all(&sink, &earlier);
    three.job.run(RunOptions::default()).await.unwrap();
    fs::remove_dir_all(&sink).unwrap();
    fs::rename(&earlier, &sink).unwrap();
    assert!(matches!(
        &three.findings().await[..],
        [Finding::RolledBack { found: 3, .. }]
    ));
    let refused = three.job.prune(&PruneOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(
        refused.chain().contains("rolled back"),
        "{}",
        refused.chain()
    );
    // The next backup does not take the lost number, so the hole stays visible.
    let next = three.job.run(RunOptions::default()).await.unwrap();
    assert_eq!(next.sequence, 5);
    assert!(
        three
            .findings()
            .await
            .contains(&Finding::Gap { first: 4, last: 4 })
    );
}

#[tokio::test]
async fn another_newest_backup_of_the_same_number_stays_reported() {
    let keys = Keys::new();
    let three = three(&keys).await;
    let (sink, earlier) = (
        three.folder.path().join("sink"),
        three.folder.path().join("earlier"),
    );
    copy_all(&sink, &earlier);
    three.job.run(RunOptions::default()).await.unwrap();
    fs::remove_dir_all(&sink).unwrap();
    fs::rename(&earlier, &sink).unwrap();
    let stateless = job("orders", &keys, &sink)
        .source(MemorySource::new([("rows.csv", "1,hammer\n")]))
        .build()
        .unwrap();
    let report = stateless.run(RunOptions::default()).await.unwrap();
    assert_eq!(report.sequence, 4);
    for _ in 0..2 {
        let findings = three.findings().await;
        assert!(
            matches!(&findings[..], [Finding::RolledBack { found: 4, .. }]),
            "{findings:?}"
        );
        let latest = three.job.find("latest").await.unwrap_err();
        assert_eq!(latest.kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn where_nothing_can_be_remembered_everything_is_read_all_the_same() {
    let keys = Keys::new();
    let three = three(&keys).await;
    let file = three.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let job = job("orders", &keys, &three.folder.path().join("sink"))
        .state_dir(file.join("state"))
        .build()
        .unwrap();
    let id = job.find("latest").await.unwrap().manifest.id.clone();
    assert_eq!(id, three.ids[2]);
    job.restore(&id, &MemoryTarget::new(), RestoreRequest::default())
        .await
        .unwrap();
}

/// Also where the policy lets nothing go, so that nothing is refused.
#[tokio::test]
async fn what_is_left_of_a_lost_newest_backup_is_not_swept() {
    let three = three(&Keys::new()).await;
    fs::remove_file(three.at(2).join("manifest.json")).unwrap();
    let files = || fs::read_dir(three.at(2)).unwrap().count();
    let before = files();
    let options = PruneOptions::default().sweep_older_than(Duration::ZERO);
    three.job.prune(&options).await.unwrap();
    assert_eq!(files(), before);
}

#[tokio::test]
async fn a_gap_is_reported_unless_a_prune_record_covers_it() {
    let three = three(&Keys::new()).await;
    let hidden = three.folder.path().join("hidden");
    fs::rename(three.at(1), &hidden).unwrap();
    assert_eq!(three.findings().await, [Finding::Gap { first: 2, last: 2 }]);
    fs::rename(&hidden, three.at(1)).unwrap();

    let pruned = three
        .job
        .prune(&PruneOptions::default().max_deletes(1))
        .await
        .unwrap();
    assert_eq!(pruned[0].deleted, [three.ids[0].clone()]);
    assert!(!three.at(0).exists());
    assert_eq!(three.findings().await, []);
    let again = three.job.prune(&PruneOptions::default()).await.unwrap();
    assert!(again[0].deleted.is_empty());
}

#[tokio::test]
async fn two_writers_that_did_not_see_each_other_are_a_reported_fork() {
    let (keys, folder) = (Keys::new(), tempfile::tempdir().unwrap());
    let one = |sink: &str| {
        job("orders", &keys, &folder.path().join(sink))
            .source(MemorySource::new([("rows.csv", "1,anvil\n")]))
            .build()
            .unwrap()
    };
    let (here, there) = (one("here"), one("there"));
    let first = here.run(RunOptions::default()).await.unwrap().id;
    let second = there.run(RunOptions::default()).await.unwrap().id;
    copy_all(&folder.path().join("there"), &folder.path().join("here"));
    let history = here.history().await.unwrap();
    let mut ids = vec![first, second];
    ids.sort();
    assert_eq!(history.findings, [Finding::Fork { sequence: 1, ids }]);
    assert_eq!(history.backups.len(), 2, "both are kept");
}

#[tokio::test]
async fn a_second_run_on_one_host_is_kept_off() {
    let three = three(&Keys::new()).await;
    let lock = three.folder.path().join("state/orders/run.lock");
    let held = fs::File::open(lock).unwrap();
    held.try_lock().unwrap();
    let error = three.job.run(RunOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    drop(held);
    three.job.run(RunOptions::default()).await.unwrap();
}

/// Vouches as `TrustedKeys` does, and lets another process get ahead while it does so.
struct Meanwhile {
    keys: TrustedKeys,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Verifier for Meanwhile {
    fn verify(&self, message: &[u8], signature: &str) -> Result<String> {
        if let Some(then) = self.then.lock().unwrap().take() {
            then();
        }
        self.keys.verify(message, signature)
    }
}

#[tokio::test]
async fn what_another_process_commits_during_a_listing_is_no_rollback() {
    // A reader that listed before a commit and asked for the remembered head after it reported a
    // rolled-back sink.
    let keys = Keys::new();
    let three = three(&keys).await;
    let head = three.folder.path().join("state/orders/head.json");
    let ahead = fs::read_to_string(&head)
        .unwrap()
        .replace("\"sequence\":3", "\"sequence\":4");
    let meanwhile = Meanwhile {
        keys: TrustedKeys::new([keys.signing.public()]),
        then: Mutex::new(Some(Box::new(move || fs::write(head, ahead).unwrap()))),
    };
    let reader = job("orders", &keys, &three.folder.path().join("sink"))
        .pipeline(keys.pipeline().trust(meanwhile))
        .state_dir(three.folder.path().join("state"))
        .build()
        .unwrap();
    assert_eq!(reader.history().await.unwrap().findings, []);
    // The head that was remembered meanwhile counts from the next listing on.
    assert_eq!(reader.history().await.unwrap().findings.len(), 1);
}

#[tokio::test]
async fn a_forged_last_number_stops_a_run_before_it_stores_anything() {
    // Found beside a fuzz target: a prune record that claims every number made the next backup
    // number 0, which was committed and which no reader takes for a backup.
    let sink = MemorySink::new();
    let key = Key::parse("orders/prunes/20261121T030000Z-00000000.json").unwrap();
    let record = format!(
        r#"{{"format":1,"time":"2026-11-21T03:00:00Z","deleted":[],"earlier":[[1,{}]]}}"#,
        u64::MAX
    );
    let data = ByteStream::from_bytes(record);
    sink.put(&key, data, &PutOptions::default()).await.unwrap();
    let job = Job::builder("orders")
        .pipeline(Pipeline::unencrypted())
        .source(MemorySource::new([("rows.csv", "1,anvil\n")]))
        .sink("memory", sink.clone())
        .build()
        .unwrap();
    let error = job.run(RunOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.chain().contains("18446744073709551615"),
        "{}",
        error.chain()
    );
    let objects: Vec<_> = sink.list(None).try_collect().await.unwrap();
    assert_eq!(objects.len(), 1);
}
