//! Servers to which something happens in the midst of a job.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use backup_core::testing::service;
use backup_core::{ErrorKind, Event, MemorySink, RunOptions};
use reqwest::Method;
use serde_json::json;

use crate::fails_to_restore;
use crate::support::{
    Cluster, Kind, Once, back_up, back_up_watched, job, one_clear_line, restores, wait_for,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_point_in_time_that_is_lost_ends_the_backup() {
    for cluster in Kind::all() {
        cluster.seed_few(2000).await;
        let (told, lost) = mpsc::channel();
        let own = cluster.on(&cluster.url);
        // As if their node had ended.
        let lose = Once::at_first_part(move || {
            wait_for(async move {
                let ids = own.points().await;
                told.send(ids.len()).unwrap();
                own.ask(
                    Method::DELETE,
                    "/_search/point_in_time",
                    json!({"pit_id": ids}),
                )
                .await;
            });
        });
        let sink = MemorySink::new();
        let outcome = back_up_watched(cluster.source(), &sink, &lose).await;
        let error = outcome.unwrap_err();
        assert_eq!(lost.recv().unwrap(), 2, "two indices have one each");
        assert_eq!(error.kind(), ErrorKind::Source);
        let line = one_clear_line(&error);
        assert!(line.contains("run the backup again"), "{line}");
        let unwatched = job(cluster.source(), sink).build().unwrap();
        assert!(unwatched.find("latest").await.is_err());
        unwatched.run(RunOptions::default()).await.unwrap();
        cluster.wipe().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_is_full_says_so() {
    for cluster in Kind::all() {
        let before = cluster.seed_few(100).await;
        let sink = MemorySink::new();
        back_up(cluster.source(), &sink).await.unwrap();
        cluster.wipe().await;
        // What the flood stage sets on each index of a node. The answer is the server's own.
        let settings = format!("/{}/_settings", cluster.name("bulk"));
        let own = cluster.on(&cluster.url);
        let documents = |event: &Event<'_>| matches!(event, Event::PartStarted { part } if part.contains("bulk"));
        let full = Once::new(documents, move || {
            let flood = json!({"index.blocks.read_only_allow_delete": true});
            wait_for(async move { own.put(&settings, flood).await });
        });
        let watched = job(cluster.source(), sink.clone()).observer(full.observers());
        let watched = watched.build().unwrap();
        let error = fails_to_restore(&watched, &cluster, &cluster.target()).await;
        assert!(full.fired());
        let line = one_clear_line(&error);
        assert!(
            line.contains("the server's disk is full") && line.contains("deleted again"),
            "{line}"
        );
        let job = job(cluster.source(), sink).build().unwrap();
        restores(&job, &cluster, &cluster.target(), &before).await;
    }
}

/// A server of one test, to be killed.
struct Node {
    child: Child,
    cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl Node {
    async fn start() -> Option<Self> {
        let program = service("LIFEBELT_OPENSEARCH_NODE")?;
        let folder = tempfile::tempdir().unwrap();
        let port = || {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port().to_string()
        };
        let (http, transport) = (port(), port());
        let mut command = Command::new(program);
        command.arg(folder.path()).args([&http, &transport]);
        command.stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let node = Self {
            child: child.unwrap(),
            cluster: Cluster::at(format!("http://127.0.0.1:{http}"), "own-".to_owned()),
            _folder: folder,
        };
        let ready = format!("http://127.0.0.1:{http}/_cluster/health?wait_for_status=yellow");
        let deadline = Instant::now() + Duration::from_secs(120);
        while !reqwest::get(&ready)
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            assert!(Instant::now() < deadline, "no node");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_ends_the_backup() {
    let Some(node) = Node::start().await else {
        return;
    };
    node.cluster.seed_few(3000).await;
    let pid = node.child.id().to_string();
    let documents =
        |event: &Event<'_>| matches!(event, Event::Progress { part, .. } if part.contains("bulk"));
    let kill = Once::new(documents, move || {
        let killed = Command::new("kill").args(["-KILL", &pid]).status();
        assert!(killed.unwrap().success());
    });
    let sink = MemorySink::new();
    let source = node.cluster.source().timeout(Duration::from_secs(5));
    let error = back_up_watched(source, &sink, &kill).await.unwrap_err();
    assert!(kill.fired());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    one_clear_line(&error);
    let job = job(node.cluster.source(), sink).build().unwrap();
    assert!(job.find("latest").await.is_err());
}
