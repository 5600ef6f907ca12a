//! What is not kept, not taken and not restored.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    ByteStream, ErrorKind, Job, Key, MemorySink, Pipeline, PutOptions, RestoreRequest, RunOptions,
    SigningKey, Sink, TrustedKeys,
};
use bytes::Bytes;
use futures::TryStreamExt;
use reqwest::Method;
use serde_json::json;
use store_opensearch::{Aliases, Conflict, OpenSearchSnapshot, OpenSearchSnapshotTarget};

use super::support::gate::{FORBIDDEN, Gate, Reply, Rule};
use super::support::{assert_same, one_clear_line};
use super::{Place, job, restore};

/// What other than `SUCCESS` a server may say at last; where these come from is said in
/// `snapshots.rs`.
const PARTIAL: Reply = Reply {
    status: 200,
    body: include_str!("../replies/partial.json"),
};
const RUNNING: Reply = Reply {
    status: 200,
    body: include_str!("../replies/running.json"),
};

#[tokio::test]
async fn half_a_snapshot_is_not_kept() {
    for place in Place::all().await {
        place.cluster.seed_few(0).await;
        for (reply, kind, says) in [
            (PARTIAL, ErrorKind::Source, "PARTIAL"),
            (RUNNING, ErrorKind::Unavailable, "was not done after"),
        ] {
            let request = format!("GET /_snapshot/{}/lifebelt", place.repository);
            let rule = Rule::all(request.leak(), reply);
            let gate = Gate::to(place.cluster.port(), rule);
            let source = place.source(&gate.url).deadline(Duration::from_secs(1));
            let job = place.job(source);
            let error = job.run(RunOptions::default()).await.unwrap_err();
            let line = one_clear_line(&error);
            assert!(gate.fired() > 0, "{line}");
            assert!(error.kind() == kind && line.contains(says), "{line}");
            assert!(job.find("latest").await.is_err());
            place.only_theirs_is_left().await;
        }
        place.leave().await;
    }
}

#[tokio::test]
async fn a_snapshot_that_lacks_shards_is_a_backup_only_where_that_is_allowed() {
    for place in Place::all().await {
        let cluster = &place.cluster;
        cluster.seed_few(0).await;
        let nowhere = json!({"settings": {
            "number_of_replicas": 0, "index.routing.allocation.require._name": "nobody",
        }});
        let torn = format!("/{}?wait_for_active_shards=0", cluster.name("torn"));
        cluster.put(&torn, nowhere).await;
        let source = || place.source(&cluster.url);
        let error = place.job(source()).run(RunOptions::default()).await;
        let line = one_clear_line(&error.unwrap_err());
        assert!(line.contains("primary shards"), "{line}");
        place.only_theirs_is_left().await;

        let job = place.job(source().allow_partial(true));
        let id = job.run(RunOptions::default()).await.unwrap().id;
        let backup = job.find("latest").await.unwrap();
        assert_eq!(backup.manifest.facts.get("state").unwrap(), "PARTIAL");
        let found = job.verify(&id, None).await.unwrap();
        assert!(found[0].problems.is_empty(), "{found:?}");
        cluster.wipe_indices().await;
        restore(&job, &place.target()).await.unwrap_err();
        assert_eq!(cluster.count().await, 0);
        let orders = cluster.name("orders");
        let whole = place.target().indices([&orders]);
        restore(&job, &whole.aliases(Aliases::Skip)).await.unwrap();
        let count = cluster.get(&format!("/{orders}/_count")).await;
        assert_eq!(count["count"], 60);
        place.leave().await;
    }
}

/// Deletes what shards are made of, and leaves what describes them.
fn lose(folder: &Path) -> u32 {
    let mut lost = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            lost += lose(&path);
        } else if path
            .file_name()
            .unwrap()
            .as_encoded_bytes()
            .starts_with(b"__")
        {
            std::fs::remove_file(path).unwrap();
            lost += 1;
        }
    }
    lost
}

#[tokio::test]
async fn a_snapshot_whose_files_are_lost_leaves_nothing_of_it_behind() {
    for place in Place::all().await {
        let cluster = &place.cluster;
        cluster.seed_few(0).await;
        let job = place.job(place.source(&cluster.url));
        job.run(RunOptions::default()).await.unwrap();
        cluster.wipe_indices().await;
        assert!(lose(&place.folder) > 0, "no files of shards");
        let error = restore(&job, &place.target()).await.unwrap_err();
        let line = one_clear_line(&error);
        assert!(line.contains("cannot be restored"), "{line}");
        assert_eq!(cluster.count().await, 0);
        place.leave().await;
    }
}

#[tokio::test]
async fn what_was_closed_for_a_restore_that_is_refused_is_open_again() {
    for place in Place::all().await {
        let cluster = &place.cluster;
        let before = cluster.seed_few(5).await;
        let job = place.job(place.source(&cluster.url));
        let id = job.run(RunOptions::default()).await.unwrap().id;
        let request = format!("POST /_snapshot/{}/lifebelt", place.repository);
        let gate = Gate::to(cluster.port(), Rule::all(request.leak(), FORBIDDEN));
        let target = OpenSearchSnapshotTarget::kept(&gate.url).unwrap();
        let target = target
            .indices([cluster.name("*")])
            .conflict(Conflict::Close);
        let agreed = RestoreRequest::default().overwrite(gate.url.clone());
        let error = job.restore(&id, &target, agreed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert_eq!(gate.fired(), 1);
        let line = one_clear_line(&error);
        assert!(
            !line.contains("closed") && !line.contains("deleted"),
            "{line}"
        );
        assert_same(&cluster.fingerprint().await, &before, &cluster.url);
        place.leave().await;
    }
}

/// Everything that a sink has.
async fn stored(sink: &MemorySink) -> Vec<(Key, Bytes)> {
    let mut stored = Vec::new();
    let objects: Vec<_> = sink.list(None).try_collect().await.unwrap();
    for object in objects {
        let bytes = sink.get(&object.locator(), None).await.unwrap();
        stored.push((object.key, bytes.collect(usize::MAX).await.unwrap()));
    }
    stored
}

#[tokio::test]
async fn a_damaged_receipt_is_refused_before_the_cluster_is_asked_anything() {
    let Some(place) = Place::all().await.pop() else {
        return;
    };
    place.cluster.seed_few(0).await;
    let key = Arc::new(SigningKey::generate().unwrap());
    let signed = || {
        Pipeline::unencrypted()
            .sign(key.clone())
            .trust(TrustedKeys::new([key.public()]))
    };
    let sink = MemorySink::new();
    let job = job(place.source(&place.cluster.url), sink.clone());
    let report = job.pipeline(signed()).build().unwrap();
    let id = report.run(RunOptions::default()).await.unwrap().id;
    let whole = stored(&sink).await;

    let gate = Gate::to(place.cluster.port(), Rule::all("", FORBIDDEN));
    let target = OpenSearchSnapshotTarget::kept(&gate.url).unwrap();
    let restore = async |damaged: &Key, bytes: &[u8]| {
        let sink = MemorySink::new();
        for (key, whole) in &whole {
            let bytes = match key == damaged {
                true => Bytes::copy_from_slice(bytes),
                false => whole.clone(),
            };
            let bytes = ByteStream::from_bytes(bytes);
            sink.put(key, bytes, &PutOptions::default()).await.unwrap();
        }
        let job = Job::builder("search").sink("sink", sink).pipeline(signed());
        let restored = job.build().unwrap();
        let restored = restored.restore(&id, &target, RestoreRequest::default());
        restored.await.unwrap_err()
    };
    let receipts = || {
        whole
            .iter()
            .filter(|(key, _)| key.name().starts_with("manifest.json"))
    };
    for (key, bytes) in receipts() {
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            for damaged in [&bytes[..at], &flipped] {
                let error = restore(key, damaged).await;
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{key} at {at}: {error:?}");
            }
        }
    }
    assert_eq!(receipts().count(), 2, "the receipt and its signature");
    assert_eq!(gate.fired(), 0, "the cluster was asked");
    let (key, bytes) = &whole[0];
    assert_eq!(restore(key, bytes).await.kind(), ErrorKind::Denied);
    assert!(gate.fired() > 0);
    place.leave().await;
}

#[tokio::test]
async fn a_repository_is_what_it_is_said_to_be_or_refused() {
    for place in Place::all().await {
        let cluster = &place.cluster;
        cluster.seed_few(0).await;
        let source = || place.source(&cluster.url);
        let location = |name: &str| {
            let folder = place.folder.with_file_name(name);
            [("location", folder.to_str().unwrap().to_owned())]
        };
        for (source, says) in [
            (source().unencrypted(false), "unencrypted = true"),
            (
                source().register("fs", location("other")),
                "is another than configured",
            ),
            (
                source().register("s3", location(&place.repository)),
                "its type is",
            ),
        ] {
            let outcome = place.job(source).run(RunOptions::default()).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
            assert!(one_clear_line(&error).contains(says), "{error:?}");
        }
        place.only_theirs_is_left().await;
        place.leave().await;
    }
}

#[tokio::test]
async fn a_repository_that_is_missing_is_made_where_that_is_said() {
    for place in Place::all().await {
        let cluster = &place.cluster;
        cluster.seed_few(0).await;
        let name = cluster.name("new");
        let run = async |source: OpenSearchSnapshot| {
            let source = source.indices([cluster.name("*")]);
            place.job(source).run(RunOptions::default()).await
        };
        let new = OpenSearchSnapshot::kept(&cluster.url, &name).unwrap();
        let folder = place.folder.with_file_name(&name);
        let registered = new
            .clone()
            .register("fs", [("location", folder.to_str().unwrap())]);
        for (source, says) in [
            (new.unencrypted(true), "has no repository"),
            (registered.clone(), "unencrypted = true"),
        ] {
            let error = run(source).await.unwrap_err();
            assert!(one_clear_line(&error).contains(says), "{error:?}");
        }
        let (status, _) = cluster
            .try_ask(Method::GET, &format!("/_snapshot/{name}"), "")
            .await;
        assert_eq!(status, 404, "refused, and registered");

        for _ in 0..2 {
            run(registered.clone().unencrypted(true)).await.unwrap();
        }
        let made = Place {
            cluster: cluster.on(&cluster.url),
            folder,
            repository: name,
        };
        assert_eq!(made.snapshots().await.len(), 2);
        made.leave().await;
        place.leave().await;
    }
}
