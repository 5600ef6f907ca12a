//! The kit, on both series.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use backup_core::testing::source::SourceFixture;
use backup_core::testing::target::TargetFixture;
use backup_core::{Source, Target, async_trait};
use store_etcd::{Etcd, EtcdServer};
use support::proxy::{Fault, Proxy};
use support::{Kind, Server};

/// A server to back up, and a data directory to restore into.
struct Place {
    server: Option<Server>,
    to: tempfile::TempDir,
    proxy: Mutex<Option<Proxy>>,
}

impl Place {
    fn new(kind: Kind) -> Self {
        Self {
            server: kind.at_hand().map(|it| it.start(&[])),
            to: tempfile::tempdir().unwrap(),
            proxy: Mutex::new(None),
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn data(&self) -> PathBuf {
        self.to.path().join("data")
    }
}

#[async_trait]
impl SourceFixture for Place {
    fn missing(&self) -> Option<String> {
        self.server.is_none().then(|| "no etcd".to_owned())
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.server().source())
    }

    async fn seed(&self) -> String {
        self.server().seed();
        self.server().fingerprint()
    }

    /// A server whose connections break after a megabyte.
    async fn break_midway(&self) -> Arc<dyn Source> {
        let proxy = Proxy::to(self.server().port, Fault::Cut(1_000_000));
        let source = Etcd::from_url(format!("127.0.0.1:{}", proxy.port)).unwrap();
        *self.proxy.lock().unwrap() = Some(proxy);
        Arc::new(source)
    }

    async fn leftovers(&self) -> Vec<String> {
        let beside = fs::read_dir(self.to.path()).unwrap();
        let within = fs::read_dir(self.data()).into_iter().flatten();
        let names = beside.chain(within);
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter(|name| !["data", "member"].contains(&name.as_str()))
            .collect()
    }
}

#[async_trait]
impl TargetFixture for Place {
    fn target(&self) -> Arc<dyn Target> {
        Arc::new(self.server().programs.target(&self.data()))
    }

    async fn wipe(&self) {
        let _ = fs::remove_dir_all(self.data());
    }

    /// What a server has that starts from a copy of it.
    async fn fingerprint(&self) -> String {
        match self.data().exists() {
            true => self
                .server()
                .programs
                .start_on_copy(&self.data())
                .fingerprint(),
            false => String::new(),
        }
    }
}

/// A server to back up, and one that runs to restore into.
struct Running {
    from: Place,
    to: Option<Server>,
}

impl Running {
    fn new(kind: Kind) -> Self {
        Self {
            from: Place::new(kind),
            to: kind.at_hand().map(|it| it.start(&[])),
        }
    }

    fn to(&self) -> &Server {
        self.to.as_ref().unwrap()
    }
}

#[async_trait]
impl SourceFixture for Running {
    fn missing(&self) -> Option<String> {
        self.from.missing()
    }

    fn source(&self) -> Arc<dyn Source> {
        self.from.source()
    }

    async fn seed(&self) -> String {
        self.from.server().seed();
        self.from.server().contents()
    }

    async fn break_midway(&self) -> Arc<dyn Source> {
        self.from.break_midway().await
    }

    async fn leftovers(&self) -> Vec<String> {
        self.from.leftovers().await
    }
}

#[async_trait]
impl TargetFixture for Running {
    fn target(&self) -> Arc<dyn Target> {
        Arc::new(EtcdServer::from_url(self.to().endpoint()).unwrap())
    }

    async fn wipe(&self) {
        self.to().ask(&["del", "", "--prefix"]);
    }

    async fn fingerprint(&self) -> String {
        self.to().contents()
    }
}

backup_core::testing::source!(source, async { Place::new(Kind::Etcd) });
backup_core::testing::target!(target, async { Place::new(Kind::Etcd) });
backup_core::testing::source!(source_34, async { Place::new(Kind::Etcd34) });
backup_core::testing::target!(target_34, async { Place::new(Kind::Etcd34) });
backup_core::testing::target!(running, async { Running::new(Kind::Etcd) });
