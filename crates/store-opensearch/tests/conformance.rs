//! The kit, on every kind of server.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use backup_core::testing::source::SourceFixture;
use backup_core::testing::target::TargetFixture;
use backup_core::{Source, Target, async_trait};
use store_opensearch::{OpenSearch, OpenSearchSnapshot, OpenSearchSnapshotTarget};
use support::gate::{FORBIDDEN, Gate, Rule};
use support::proxy::{Fault, Proxy};
use support::{Cluster, Kind, wait_for};

const PASSWORD: &str = "p@ss:w/rd canary";

/// A share of a server, to back up and to restore into.
struct Share {
    cluster: Option<Cluster>,
    proxy: Mutex<Option<Proxy>>,
    /// Documents of a kilobyte.
    bulk: u32,
}

impl Share {
    fn new(kind: Kind, bulk: u32) -> Self {
        Self {
            cluster: kind.at_hand(),
            proxy: Mutex::new(None),
            bulk,
        }
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }
}

#[async_trait]
impl SourceFixture for Share {
    fn missing(&self) -> Option<String> {
        self.cluster.is_none().then(|| "no server".to_owned())
    }

    fn source(&self) -> Arc<dyn Source> {
        // The server asks for no password: it must show up nowhere all the same.
        Arc::new(self.cluster().source().user("u").password(PASSWORD))
    }

    async fn seed(&self) -> String {
        self.cluster().seed_few(self.bulk).await
    }

    /// A server that is gone after a megabyte.
    async fn break_midway(&self) -> Arc<dyn Source> {
        let proxy = Proxy::to(self.cluster().port(), Fault::Die(1_000_000));
        let url = format!("http://127.0.0.1:{}", proxy.port);
        *self.proxy.lock().unwrap() = Some(proxy);
        let own = format!("{}*", self.cluster().prefix);
        let source = OpenSearch::from_url(url)
            .unwrap()
            .indices([&own])
            .state([&own]);
        Arc::new(source.user("u").password(PASSWORD))
    }

    async fn leftovers(&self) -> Vec<String> {
        // A server that is gone cannot be told: there they last for five minutes.
        let gone = self.proxy.lock().unwrap().as_ref().map(Proxy::fired);
        if gone > Some(0) {
            return Vec::new();
        }
        self.cluster().points().await
    }

    fn secret(&self) -> Option<String> {
        Some(PASSWORD.to_owned())
    }
}

#[async_trait]
impl TargetFixture for Share {
    fn target(&self) -> Arc<dyn Target> {
        Arc::new(self.cluster().target().user("u").password(PASSWORD))
    }

    async fn wipe(&self) {
        // What a restore that was given up on had made is deleted in the background.
        self.cluster().wipe().await;
        for _ in 0..100 {
            if self.cluster().count().await == 0 {
                return;
            }
            self.cluster().wipe().await;
        }
    }

    async fn fingerprint(&self) -> String {
        self.cluster().fingerprint().await
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(cluster) = self.cluster.take() else {
            return;
        };
        // A test may end in a panic, and its runtime with it.
        wait_for(async move { cluster.wipe().await });
    }
}

/// The same by snapshots, in a folder that the server shares with us.
struct Snapshots {
    share: Share,
    folder: Option<PathBuf>,
    gate: Mutex<Option<Gate>>,
}

impl Snapshots {
    fn new(kind: Kind) -> Self {
        Self {
            share: Share::new(kind, 0),
            folder: kind.repositories(),
            gate: Mutex::new(None),
        }
    }

    fn folder(&self) -> PathBuf {
        self.folder.clone().unwrap()
    }

    fn at(&self, url: &str) -> OpenSearchSnapshot {
        let own = format!("{}*", self.share.cluster().prefix);
        let source = OpenSearchSnapshot::new(url, self.folder()).unwrap();
        source.indices([&own]).user("u").password(PASSWORD)
    }
}

#[async_trait]
impl SourceFixture for Snapshots {
    fn missing(&self) -> Option<String> {
        self.share.missing()
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.at(&self.share.cluster().url))
    }

    async fn seed(&self) -> String {
        self.share.seed().await
    }

    /// A server that does not take away what it made: the parts are begun by then.
    async fn break_midway(&self) -> Arc<dyn Source> {
        let rule = Rule::all("DELETE /_snapshot", FORBIDDEN);
        let gate = Gate::to(self.share.cluster().port(), rule);
        let source = self.at(&gate.url);
        *self.gate.lock().unwrap() = Some(gate);
        Arc::new(source)
    }

    async fn leftovers(&self) -> Vec<String> {
        let left = self.share.cluster().repositories().await;
        match self.gate.lock().unwrap().as_ref().map(Gate::fired) {
            Some(1..) => Vec::new(),
            _ => left,
        }
    }

    fn secret(&self) -> Option<String> {
        self.share.secret()
    }
}

#[async_trait]
impl TargetFixture for Snapshots {
    fn target(&self) -> Arc<dyn Target> {
        let cluster = self.share.cluster();
        let target = OpenSearchSnapshotTarget::new(&cluster.url, self.folder()).unwrap();
        let own = format!("{}*", cluster.prefix);
        Arc::new(target.indices([&own]).user("u").password(PASSWORD))
    }

    async fn wipe(&self) {
        while self.share.cluster().count().await > 0 {
            self.share.cluster().wipe_indices().await;
        }
    }

    async fn fingerprint(&self) -> String {
        self.share.fingerprint().await
    }
}

// A cluster takes its time: what the versions do not differ in is tried with one of them. Whole ways
// there and back, with both, are in `service.rs` and `snapshots.rs`.
backup_core::testing::source!(source_3, async { Share::new(Kind::V3, 3000) });
backup_core::testing::target!(target_3, async { Share::new(Kind::V3, 0) });
backup_core::testing::target!(target_2, async { Share::new(Kind::V2, 0) });
backup_core::testing::source!(snapshot_source_2, async { Snapshots::new(Kind::V2) });
backup_core::testing::target!(snapshot_target_3, async { Snapshots::new(Kind::V3) });
