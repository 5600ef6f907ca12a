//! The kit, on every major version.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use backup_core::testing::source::SourceFixture;
use backup_core::testing::target::TargetFixture;
use backup_core::{Source, Target, async_trait};
use store_postgres::{Postgres, PostgresDatabase};
use support::{Database, SCHEMA, Server};

/// One database to back up and one to restore into.
struct Place {
    /// `None` where there is no server.
    databases: Option<(Database, Database)>,
    shards: usize,
    folder: tempfile::TempDir,
}

impl Place {
    fn new(major: u32, shards: usize) -> Self {
        let server = Server::at_hand(major);
        Self {
            databases: server.map(|server| (server.database("from"), server.name("to"))),
            shards,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn from(&self) -> &Database {
        &self.databases.as_ref().unwrap().0
    }

    fn to(&self) -> &Database {
        &self.databases.as_ref().unwrap().1
    }

    fn make(&self) -> Postgres {
        self.from().source().shards(self.shards)
    }
}

#[async_trait]
impl SourceFixture for Place {
    fn missing(&self) -> Option<String> {
        self.databases.is_none().then(|| "no server".to_owned())
    }

    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.make())
    }

    async fn seed(&self) -> String {
        self.from().psql(SCHEMA);
        self.from().fingerprint().unwrap()
    }

    /// A `pg_dump` that is gone after two megabytes.
    async fn break_midway(&self) -> Arc<dyn Source> {
        let bin = &self.from().server.bin;
        for name in ["pg_dump", "pg_dumpall"] {
            let (file, real) = (self.folder.path().join(name), bin.join(name));
            let real = real.display();
            let script = match name {
                "pg_dump" => format!(
                    "#!/bin/sh\ncase $1 in --version) exec {real} --version; esac\n{real} \"$@\" | head -c 2000000\necho gone: $PGPASSWORD >&2\nexit 1\n"
                ),
                _ => format!("#!/bin/sh\nexec {real} \"$@\"\n"),
            };
            fs::write(&file, script).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Arc::new(self.make().bin(self.folder.path()))
    }

    async fn leftovers(&self) -> Vec<String> {
        [self.from().leftovers(), self.to().leftovers()].concat()
    }

    fn secret(&self) -> Option<String> {
        Some(self.from().server.password().to_owned())
    }
}

#[async_trait]
impl TargetFixture for Place {
    fn target(&self) -> Arc<dyn Target> {
        let target: PostgresDatabase = self.to().target();
        Arc::new(target)
    }

    async fn wipe(&self) {
        self.to().destroy();
    }

    async fn fingerprint(&self) -> String {
        self.to().fingerprint().unwrap_or_default()
    }
}

macro_rules! kit {
    ($source:ident, $target:ident, $major:literal, $shards:literal) => {
        backup_core::testing::source!($source, async { Place::new($major, $shards) });
        backup_core::testing::target!($target, async { Place::new($major, $shards) });
    };
}

kit!(source_15, target_15, 15, 1);
kit!(source_16, target_16, 16, 1);
kit!(source_18, target_18, 18, 1);
kit!(source_15_sharded, target_15_sharded, 15, 3);
