//! Snapshots that the real servers keep, by their receipts.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod refused;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use backup_core::retention::KeepLast;
use backup_core::testing::eventually;
use backup_core::testing::faults::{Call, Fault, FaultySink};
use backup_core::{
    Clock, ErrorKind, Id, Job, JobBuilder, MemorySink, Pipeline, PruneOptions, RestoreRequest,
    Result, RunOptions, Sink, Source,
};
use reqwest::Method;
use serde_json::{Value, json};
use store_opensearch::{OpenSearchSnapshot, OpenSearchSnapshotTarget};
use support::{Cluster, assert_same, one_clear_line};

/// A cluster with a repository that has a snapshot of somebody else in it.
struct Place {
    cluster: Cluster,
    folder: PathBuf,
    repository: String,
}

impl Place {
    async fn all() -> Vec<Self> {
        let mut places = Vec::new();
        for kind in support::KINDS {
            if let (Some(cluster), Some(folder)) = (kind.at_hand(), kind.repositories()) {
                let repository = format!("{}kept", cluster.prefix);
                let folder = folder.join(&repository);
                let place = Self {
                    cluster,
                    folder,
                    repository,
                };
                place.strangers().await;
                places.push(place);
            }
        }
        places
    }

    async fn strangers(&self) {
        let (cluster, path) = (&self.cluster, format!("/_snapshot/{}", self.repository));
        let body = json!({"type": "fs", "settings": {"location": self.folder}});
        cluster.put(&path, body).await;
        let theirs = format!("{path}/theirs?wait_for_completion=true");
        cluster.put(&theirs, json!({"indices": "no-such-*"})).await;
    }

    fn source(&self, url: &str) -> OpenSearchSnapshot {
        let source = OpenSearchSnapshot::kept(url, &self.repository).unwrap();
        source
            .indices([format!("{}*", self.cluster.prefix)])
            .unencrypted(true)
            .timeout(Duration::from_secs(5))
    }

    fn target(&self) -> OpenSearchSnapshotTarget {
        let target = OpenSearchSnapshotTarget::kept(&self.cluster.url).unwrap();
        target.indices([format!("{}*", self.cluster.prefix)])
    }

    fn job(&self, source: OpenSearchSnapshot) -> Job {
        job(source, MemorySink::new()).build().unwrap()
    }

    /// The names of the snapshots in the repository.
    async fn snapshots(&self) -> Vec<String> {
        let path = format!("/_snapshot/{}/_all", self.repository);
        let said = self.cluster.get(&path).await;
        let found = said["snapshots"].as_array().unwrap().iter();
        let names = found.map(|snapshot| snapshot["snapshot"].as_str().unwrap().to_owned());
        names.collect()
    }

    async fn only_theirs_is_left(&self) {
        assert_eq!(self.snapshots().await, ["theirs"]);
    }

    async fn leave(self) {
        let path = format!("/_snapshot/{}", self.repository);
        for name in self.snapshots().await {
            self.delete(&format!("{path}/{name}")).await;
        }
        self.delete(&path).await;
        self.cluster.wipe().await;
    }

    async fn delete(&self, path: &str) {
        self.cluster.ask(Method::DELETE, path, Value::Null).await;
    }
}

/// Each look at it is a minute later: backups of the same second have no order.
#[derive(Debug, Default)]
struct Minutes(AtomicU64);

impl Clock for Minutes {
    fn now(&self) -> SystemTime {
        let minutes = self.0.fetch_add(1, Ordering::SeqCst);
        SystemTime::UNIX_EPOCH + Duration::from_secs(60 * (30_000_000 + minutes))
    }
}

fn job(source: OpenSearchSnapshot, sink: impl Sink) -> JobBuilder {
    Job::builder("search")
        .clock(Minutes::default())
        .source(source)
        .sink("sink", sink)
        .pipeline(Pipeline::unencrypted())
}

fn name(id: &Id) -> String {
    format!("lifebelt-{id}").to_lowercase()
}

async fn restore(job: &Job, target: &OpenSearchSnapshotTarget) -> Result<()> {
    let id = job.find("latest").await?.manifest.id.clone();
    let restored = job.restore(&id, target, RestoreRequest::default());
    restored.await.map(drop)
}

#[tokio::test]
async fn what_the_cluster_keeps_comes_back_by_its_receipt_and_goes_with_the_last_one() {
    for place in Place::all().await {
        let cluster = &place.cluster;
        let before = cluster.seed_with(200).await;
        let job = job(place.source(&cluster.url), MemorySink::new())
            .sink("longer", MemorySink::new())
            .retention_for("sink", KeepLast::new(1).unwrap())
            .retention_for("longer", KeepLast::new(2).unwrap())
            .build()
            .unwrap();
        let mut names = Vec::new();
        for _ in 0..3 {
            names.push(name(&job.run(RunOptions::default()).await.unwrap().id));
        }
        let pruned = PruneOptions::default().max_deletes(9);
        for report in job.prune(&pruned).await.unwrap() {
            assert!(report.kept.is_empty(), "{report:?}");
        }
        // One sink has the second still.
        assert_eq!(place.snapshots().await, ["theirs", &names[1], &names[2]]);

        let backup = job.find("latest").await.unwrap();
        let facts = &backup.manifest.facts;
        assert_eq!(facts.get("state").unwrap(), "SUCCESS");
        assert_eq!(facts.get("shards").unwrap(), 3 + 1 + 1 + 2 + 2);
        let id = &backup.manifest.id;
        for found in job.verify(id, None).await.unwrap() {
            assert!(found.problems.is_empty(), "{found:?}");
        }
        cluster.wipe_indices().await;
        restore(&job, &place.target()).await.unwrap();
        assert_same(&cluster.fingerprint().await, &before, &cluster.url);
        let orders = cluster.name("orders");
        let beside = place.target().indices([&orders]).rename("old-*").unwrap();
        restore(&job, &beside).await.unwrap();
        let count = cluster.get(&format!("/old-{orders}/_count")).await;
        assert_eq!(count["count"], 60);

        place.is_missed_when_it_is_gone(&job, id).await;
        place.leave().await;
    }
}

impl Place {
    /// Somebody deletes the snapshot of backup `id`, and gives its name to something else.
    async fn is_missed_when_it_is_gone(&self, job: &Job, id: &Id) {
        self.cluster.wipe_indices().await;
        let path = format!("/_snapshot/{}/{}", self.repository, name(id));
        self.delete(&path).await;
        for again in [false, true] {
            if again {
                let path = format!("{path}?wait_for_completion=true");
                self.cluster
                    .put(&path, json!({"indices": "no-such-*"}))
                    .await;
            }
            for found in job.verify(id, None).await.unwrap() {
                let said = found.problems[0].error.chain();
                assert!(said.contains("has no snapshot"), "{said}");
            }
            let error = restore(job, &self.target()).await.unwrap_err();
            let line = one_clear_line(&error);
            assert!(line.contains("has no snapshot"), "{line}");
            assert_eq!(self.cluster.count().await, 0);
        }
        // What has its name now is not ours to delete.
        let source = self.source(&self.cluster.url);
        let backup = job.find("latest").await.unwrap();
        let receipt = backup.manifest.receipt.as_ref().unwrap();
        source.delegated().unwrap().forget(receipt).await.unwrap();
        assert!(self.snapshots().await.contains(&name(id)));
    }
}

#[tokio::test]
async fn a_snapshot_that_nobody_gets_a_receipt_for_is_given_back() {
    for place in Place::all().await {
        place.cluster.seed_few(0).await;
        let source = || place.source(&place.cluster.url);
        for nth in 1.. {
            let full = Fault::Fail(ErrorKind::Unavailable);
            let sink = FaultySink::new(MemorySink::new()).at(Call::Put, nth, full);
            let job = job(source(), sink.clone()).build().unwrap();
            let outcome = job.run(RunOptions::default()).await;
            if sink.fired() == 0 {
                assert!(nth > 5 && outcome.is_ok(), "{nth} puts: {outcome:?}");
                break;
            }
            outcome.unwrap_err();
            place.only_theirs_is_left().await;
        }
        place.leave().await;
    }
}

#[tokio::test]
async fn a_run_that_is_given_up_keeps_no_snapshot() {
    for place in Place::all().await {
        place.cluster.seed_few(0).await;
        let stalled = Fault::StallAfter(1);
        let sink = FaultySink::new(MemorySink::new()).from(Call::Put, 1, stalled);
        let job = job(place.source(&place.cluster.url), sink.clone());
        let job = job.build().unwrap();
        tokio::select! {
            outcome = job.run(RunOptions::default()) => panic!("ended on a stalled sink: {outcome:?}"),
            () = eventually("the sink stalls", async || sink.fired() > 0) => {}
        }
        eventually("only theirs is left", async || {
            place.snapshots().await == ["theirs"]
        })
        .await;
        place.leave().await;
    }
}
