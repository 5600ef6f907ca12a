//! The kit, on every kind of server, over the network and with files.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::testing::source::SourceFixture;
use backup_core::testing::target::TargetFixture;
use backup_core::{Source, Target, async_trait};
use store_redis::{RdbFile, Redis};
use support::proxy::{Fault, Proxy};
use support::{Kind, PASSWORD, Server};

/// A server to back up and one to restore into.
struct Network {
    servers: Option<(Server, Server)>,
    proxy: Mutex<Option<Proxy>>,
}

impl Network {
    fn new(kind: Kind) -> Self {
        let servers = kind.at_hand().map(|it| (it.start(&[]), it.start(&[])));
        Self {
            servers,
            proxy: Mutex::new(None),
        }
    }

    fn from(&self) -> &Server {
        &self.servers.as_ref().unwrap().0
    }

    fn to(&self) -> &Server {
        &self.servers.as_ref().unwrap().1
    }
}

#[async_trait]
impl SourceFixture for Network {
    fn missing(&self) -> Option<String> {
        self.servers.is_none().then(|| "no server".to_owned())
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.from().source())
    }

    async fn seed(&self) -> String {
        self.from().seed();
        self.from().fingerprint()
    }

    /// A server whose connections break after a megabyte.
    async fn break_midway(&self) -> Arc<dyn Source> {
        let proxy = Proxy::to(self.from().port, Fault::Cut(1_000_000));
        let source = Redis::from_url(format!("redis://127.0.0.1:{}", proxy.port)).unwrap();
        *self.proxy.lock().unwrap() = Some(proxy);
        Arc::new(source.password(PASSWORD))
    }

    async fn leftovers(&self) -> Vec<String> {
        [self.from().leftovers(), self.to().leftovers()].concat()
    }

    fn secret(&self) -> Option<String> {
        Some(PASSWORD.to_owned())
    }
}

#[async_trait]
impl TargetFixture for Network {
    fn target(&self) -> Arc<dyn Target> {
        Arc::new(self.to().target())
    }

    async fn wipe(&self) {
        // One that a restore was given up on is a replica for a moment more.
        for _ in 0..500 {
            if self.to().info("role") == "master" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.to().wipe();
    }

    async fn fingerprint(&self) -> String {
        self.to().fingerprint()
    }
}

/// The files of two servers that do not run.
struct Files {
    server: Option<Server>,
    from: tempfile::TempDir,
    to: tempfile::TempDir,
}

impl Files {
    fn new(kind: Kind) -> Self {
        Self {
            server: kind.at_hand().map(|it| it.start(&[])),
            from: tempfile::tempdir().unwrap(),
            to: tempfile::tempdir().unwrap(),
        }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }
}

#[async_trait]
impl SourceFixture for Files {
    fn missing(&self) -> Option<String> {
        self.server.is_none().then(|| "no server".to_owned())
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::new(Redis::from_file(self.from.path().join("dump.rdb")))
    }

    async fn seed(&self) -> String {
        self.server().seed();
        self.server().ask(&["SAVE"]);
        fs::copy(self.server().dump(), self.from.path().join("dump.rdb")).unwrap();
        self.server().fingerprint()
    }

    /// A file that ends too early.
    async fn break_midway(&self) -> Arc<dyn Source> {
        let whole = fs::read(self.from.path().join("dump.rdb")).unwrap();
        let cut = self.from.path().join("cut.rdb");
        fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
        Arc::new(Redis::from_file(cut))
    }

    async fn leftovers(&self) -> Vec<String> {
        let names = fs::read_dir(self.to.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "dump.rdb").collect()
    }
}

#[async_trait]
impl TargetFixture for Files {
    fn target(&self) -> Arc<dyn Target> {
        Arc::new(RdbFile::new(self.to.path().join("dump.rdb")))
    }

    async fn wipe(&self) {
        let _ = fs::remove_file(self.to.path().join("dump.rdb"));
    }

    /// What a server has that starts from a copy of it.
    async fn fingerprint(&self) -> String {
        let Ok(bytes) = fs::read(self.to.path().join("dump.rdb")) else {
            return String::new();
        };
        let mut server = self.server().programs.start(&[]);
        server.kill();
        fs::write(server.dump(), bytes).unwrap();
        server.run();
        server.fingerprint()
    }
}

macro_rules! kit {
    ($($source:ident, $target:ident, $fixture:expr;)*) => { $(
        backup_core::testing::source!($source, async { $fixture });
        backup_core::testing::target!($target, async { $fixture });
    )* };
}

kit! {
    source_redis, target_redis, Network::new(Kind::Redis);
    source_redis_8, target_redis_8, Network::new(Kind::Redis8);
    source_valkey, target_valkey, Network::new(Kind::Valkey);
    source_file, target_file, Files::new(Kind::Redis);
}
