//! Snapshots of the real servers, through the pipeline and back.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use backup_core::{ErrorKind, Job, MemorySink, Pipeline, RestoreRequest, RunOptions};
use reqwest::Method;
use serde_json::{Value, json};
use store_opensearch::{Aliases, Conflict, OpenSearchSnapshot, OpenSearchSnapshotTarget};
use support::gate::{Gate, Reply, Rule};
use support::{Cluster, assert_same, one_clear_line};

struct Place {
    cluster: Cluster,
    folder: PathBuf,
}

impl Place {
    fn all() -> impl Iterator<Item = Self> {
        support::KINDS.into_iter().filter_map(|kind| {
            let (cluster, folder) = (kind.at_hand()?, kind.repositories()?);
            Some(Self { cluster, folder })
        })
    }

    fn source(&self, url: &str) -> OpenSearchSnapshot {
        let source = OpenSearchSnapshot::new(url, &self.folder).unwrap();
        source
            .indices([format!("{}*", self.cluster.prefix)])
            .timeout(Duration::from_secs(5))
    }

    fn target(&self) -> OpenSearchSnapshotTarget {
        let target = OpenSearchSnapshotTarget::new(&self.cluster.url, &self.folder).unwrap();
        target.indices([format!("{}*", self.cluster.prefix)])
    }

    fn job(&self, source: OpenSearchSnapshot, sink: &MemorySink) -> Job {
        let job = Job::builder("search")
            .source(source)
            .sink("sink", sink.clone());
        job.pipeline(Pipeline::unencrypted()).build().unwrap()
    }

    /// Neither in the cluster nor in the folder.
    async fn nothing_is_left(&self, job: &Job) {
        let id = job
            .find("latest")
            .await
            .unwrap()
            .manifest
            .id
            .as_str()
            .to_lowercase();
        let ours = |entry: std::io::Result<std::fs::DirEntry>| {
            let name = entry.unwrap().file_name();
            name.to_str().is_some_and(|name| name.contains(&id))
        };
        backup_core::testing::eventually("nothing is left", async || {
            let files = std::fs::read_dir(&self.folder).unwrap().any(ours);
            !files && self.cluster.repositories().await.is_empty()
        })
        .await;
    }
}

async fn restore(
    job: &Job,
    target: &OpenSearchSnapshotTarget,
    request: RestoreRequest,
) -> backup_core::Result<()> {
    let id = job.find("latest").await?.manifest.id.clone();
    job.restore(&id, target, request).await.map(drop)
}

#[tokio::test]
async fn a_snapshot_comes_back_whole_with_what_no_export_can_read() {
    for place in Place::all() {
        let cluster = &place.cluster;
        let hidden = cluster.name("hidden");
        cluster.put(&format!("/{hidden}"), json!({
            "settings": {"number_of_replicas": 0}, "mappings": {"_source": {"enabled": false}},
        })).await;
        cluster
            .put(
                &format!("/{hidden}/_doc/1?refresh=true"),
                json!({"a": "found"}),
            )
            .await;
        let before = cluster.seed_with(200).await;
        let sink = MemorySink::new();
        let job = place.job(place.source(&cluster.url), &sink);
        job.run(RunOptions::default()).await.unwrap();
        place.nothing_is_left(&job).await;
        let backup = job.find("latest").await.unwrap();
        let facts = &backup.manifest.facts;
        assert_eq!(facts.get("state").unwrap(), "SUCCESS");
        assert_eq!(
            facts.get("data_streams").unwrap(),
            &json!([cluster.name("logs")])
        );
        assert_eq!(facts.get("shards").unwrap(), 1 + 3 + 1 + 1 + 2 + 2);

        cluster.wipe_indices().await;
        restore(&job, &place.target(), RestoreRequest::default())
            .await
            .unwrap();
        assert_same(&cluster.fingerprint().await, &before, &cluster.url);
        let query = json!({"query": {"match": {"a": "found"}}});
        let found = cluster
            .ask(Method::POST, &format!("/{hidden}/_search"), query)
            .await;
        assert_eq!(found["hits"]["total"]["value"], 1);
        place.nothing_is_left(&job).await;
        cluster.wipe().await;
    }
}

#[tokio::test]
async fn some_indices_come_back_beside_closed_or_in_the_place_of_others() {
    for place in Place::all() {
        let cluster = &place.cluster;
        let before = cluster.seed_few(20).await;
        let sink = MemorySink::new();
        let job = place.job(place.source(&cluster.url), &sink);
        job.run(RunOptions::default()).await.unwrap();
        let orders = cluster.name("orders");
        let all = json!({"query": {"match_all": {}}});
        let lose = async || {
            cluster
                .ask(
                    Method::POST,
                    &format!("/{orders}/_delete_by_query?refresh=true"),
                    all.clone(),
                )
                .await;
        };
        lose().await;
        let named = || RestoreRequest::default().overwrite(cluster.url.clone());
        let beside = || place.target().indices([&orders]).rename("old-*").unwrap();
        let current = cluster.name("current");
        restore(&job, &beside(), RestoreRequest::default())
            .await
            .unwrap();
        assert_eq!(cluster.get(&format!("/{current}/_count")).await["count"], 0);
        restore(&job, &beside().aliases(Aliases::Swap), named())
            .await
            .unwrap();
        assert_eq!(
            cluster.get(&format!("/{current}/_count")).await["count"],
            60
        );
        cluster
            .ask(Method::DELETE, &format!("/old-{orders}"), Value::Null)
            .await;

        for refused in [RestoreRequest::default(), named()] {
            let target = place.target().conflict(Conflict::Fail);
            let error = restore(&job, &target, refused).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        }
        for conflict in [Conflict::Close, Conflict::Delete] {
            restore(&job, &place.target().conflict(conflict), named())
                .await
                .unwrap();
            assert_same(&cluster.fingerprint().await, &before, &cluster.url);
            lose().await;
        }
        place.nothing_is_left(&job).await;
        cluster.wipe().await;
    }
}

/// What other than `SUCCESS` a server may say at last. The form is that of its own answers, the
/// states those of its documentation ("Get snapshot").
const PARTIAL: Reply = Reply {
    status: 200,
    body: include_str!("replies/partial.json"),
};
const RUNNING: Reply = Reply {
    status: 200,
    body: include_str!("replies/running.json"),
};
/// 503 of a server that deletes a snapshot just now (`ConcurrentSnapshotExecutionException`).
const CONCURRENT: Reply = Reply {
    status: 503,
    body: include_str!("replies/concurrent.json"),
};

#[tokio::test]
async fn half_a_snapshot_is_no_backup_and_a_stranger_s_is_not_touched() {
    for place in Place::all() {
        let cluster = &place.cluster;
        cluster.seed_few(0).await;
        // Somebody else's, with what is ours in it.
        let stranger = format!("{}stranger", cluster.prefix);
        let body = json!({"type": "fs", "settings": {"location": place.folder.join(&stranger)}});
        cluster.put(&format!("/_snapshot/{stranger}"), body).await;
        let theirs = format!("/_snapshot/{stranger}/theirs");
        cluster
            .put(
                &format!("{theirs}?wait_for_completion=true"),
                json!({"indices": cluster.name("orders")}),
            )
            .await;

        let sink = MemorySink::new();
        for (request, reply, kind, says) in [
            ("GET /_snapshot", PARTIAL, ErrorKind::Source, "PARTIAL"),
            (
                "GET /_snapshot",
                RUNNING,
                ErrorKind::Unavailable,
                "was not done after",
            ),
            (
                "PUT /_snapshot/lifebelt",
                CONCURRENT,
                ErrorKind::Unavailable,
                "concurrent_snapshot_execution",
            ),
        ] {
            let gate = Gate::to(cluster.port(), Rule::all(request, reply));
            let source = place.source(&gate.url).deadline(Duration::from_secs(1));
            let job = place.job(source, &sink);
            let error = job.run(RunOptions::default()).await.unwrap_err();
            let line = one_clear_line(&error);
            assert!(gate.fired() > 0, "{request}: {line}");
            assert!(error.kind() == kind && line.contains(says), "{line}");
            assert!(job.find("latest").await.is_err());
        }
        // A folder that the nodes do not have, and one that we do not have.
        let elsewhere = OpenSearchSnapshot::new(&cluster.url, "/nowhere").unwrap();
        let apart = place.source(&cluster.url).mounted("/nowhere");
        for (source, says) in [
            (elsewhere, "path.repo"),
            (apart, "both must be the same folder"),
        ] {
            let source = source.indices([format!("{}*", cluster.prefix)]);
            let error = place
                .job(source, &sink)
                .run(RunOptions::default())
                .await
                .unwrap_err();
            assert!(one_clear_line(&error).contains(says), "{error:?}");
        }
        backup_core::testing::eventually("only theirs is left", async || {
            cluster.repositories().await == std::slice::from_ref(&stranger)
        })
        .await;
        place
            .job(place.source(&cluster.url), &sink)
            .run(RunOptions::default())
            .await
            .unwrap();
        let left = cluster.get(&theirs).await;
        assert_eq!(left["snapshots"][0]["state"], "SUCCESS");
        cluster.ask(Method::DELETE, &theirs, Value::Null).await;
        cluster
            .ask(
                Method::DELETE,
                &format!("/_snapshot/{stranger}"),
                Value::Null,
            )
            .await;
        cluster.wipe().await;
    }
}
