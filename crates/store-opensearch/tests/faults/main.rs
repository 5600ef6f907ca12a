//! What goes wrong on the way: an error in one clear line, no backup, and a next run that succeeds.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod midway;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Job, MemorySink, RestoreRequest};
use store_opensearch::{OpenSearch, OpenSearchCluster};
use support::proxy::{Fault, Proxy};
use support::{Cluster, Kind, back_up, job, one_clear_line, restore, restores};

/// Our share of the server, through something else.
fn source_at(cluster: &Cluster, url: &str) -> OpenSearch {
    cluster.on(url).source().timeout(Duration::from_secs(5))
}

fn target_at(cluster: &Cluster, url: &str) -> OpenSearchCluster {
    cluster.on(url).target().timeout(Duration::from_secs(5))
}

/// The backup fails, in one clear line with `says` in it, and nothing of it is visible.
async fn fails(source: OpenSearch, kind: ErrorKind, says: &str) {
    let sink = MemorySink::new();
    let error = back_up(source.clone(), &sink)
        .await
        .expect_err("half a backup is a success");
    let line = one_clear_line(&error);
    assert!(
        error.kind() == kind && line.contains(says),
        "{:?}: {line}",
        error.kind()
    );
    let job = job(source, sink).build().unwrap();
    assert!(job.find("latest").await.is_err(), "it is visible");
}

/// The restore fails, and leaves nothing.
async fn fails_to_restore(job: &Job, cluster: &Cluster, target: &OpenSearchCluster) -> Error {
    let outcome = restore(job, target, RestoreRequest::default()).await;
    let error = outcome.expect_err("half a restore is a success");
    one_clear_line(&error);
    assert_eq!(cluster.count().await, 0, "{error:?}");
    error
}

#[tokio::test]
async fn a_server_that_is_gone_or_silent_half_way_ends_the_backup() {
    for cluster in Kind::all() {
        cluster.seed_few(3000).await;
        for (fault, says) in [
            (Fault::Die(1_000_000), "connection"),
            (Fault::Stall(1_000_000), "does not answer in time"),
        ] {
            let proxy = Proxy::to(cluster.port(), fault);
            let source = source_at(&cluster, &proxy.url());
            let begun = Instant::now();
            fails(source.clone(), ErrorKind::Unavailable, says).await;
            assert!(proxy.fired() > 0 && begun.elapsed() < Duration::from_secs(60));
            // Nobody could tell the server then: its points in time are left, and harm nobody.
            proxy.mend();
            back_up(source, &MemorySink::new()).await.unwrap();
        }
        cluster.wipe().await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_once_is_opened_again() {
    for cluster in Kind::all() {
        let before = cluster.seed_few(3000).await;
        let proxy = Proxy::to(cluster.port(), Fault::Cut(1_000_000));
        let sink = MemorySink::new();
        back_up(source_at(&cluster, &proxy.url()), &sink)
            .await
            .unwrap();
        assert_eq!(proxy.fired(), 1);
        assert!(cluster.points().await.is_empty());
        cluster.wipe().await;
        let job = job(cluster.source(), sink).build().unwrap();
        // Answers to a restore are short.
        let proxy = Proxy::to(cluster.port(), Fault::Cut(1_500));
        restores(&job, &cluster, &target_at(&cluster, &proxy.url()), &before).await;
        assert_eq!(proxy.fired(), 1);
    }
}

/// At a hundred places. What is asked for once fails the backup; what is asked for again is what
/// would have come.
#[tokio::test]
async fn wherever_a_connection_breaks_a_backup_is_whole_or_none() {
    let Some(cluster) = Kind::all().next() else {
        return;
    };
    cluster.seed_few(500).await;
    let parts = async |proxy: &Proxy| {
        let (sink, source) = (MemorySink::new(), source_at(&cluster, &proxy.url()));
        let outcome = back_up(source.clone(), &sink).await;
        let job = job(source, sink).build().unwrap();
        let found = job.find("latest").await;
        assert_eq!(found.is_ok(), outcome.is_ok(), "{outcome:?}");
        outcome?;
        let parts = found.unwrap().manifest.parts.clone();
        let plain = parts.into_iter().map(|part| (part.name, part.plain));
        Ok::<BTreeMap<_, _>, Error>(plain.collect())
    };
    let proxy = Proxy::to(cluster.port(), Fault::Cut(u64::MAX));
    let undisturbed = parts(&proxy).await.unwrap();
    let step = proxy.passed() / 101;
    let mut whole = 0;
    for n in 0..100 {
        let proxy = Proxy::to(cluster.port(), Fault::Cut(n * step + (n * 7919) % step));
        match parts(&proxy).await {
            Ok(parts) => {
                assert_eq!(parts, undisturbed, "cut {n}");
                whole += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                one_clear_line(&error);
            }
        }
        assert_eq!(proxy.fired(), 1, "cut {n}");
    }
    assert!(whole > 50, "{whole} of 100 went on");
    cluster.wipe().await;
}
