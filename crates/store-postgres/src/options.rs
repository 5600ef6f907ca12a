use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::retention::Span;
use backup_core::settings::Unknown;
use backup_core::{Error, Result, Secret};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::env::Vars;
use crate::programs::Programs;
use crate::server::{Pieces, Server, invalid};

/// A database to back up.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "SourceTable")]
pub struct Postgres {
    pub(crate) server: Server,
    pub(crate) programs: Programs,
    pub(crate) shards: usize,
    pub(crate) lock_timeout: Span,
    pub(crate) count_for: Span,
}

/// A database to restore into, which need not exist yet.
///
/// `Display` prints its URL without user and password: what a caller repeats to overwrite it.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "TargetTable")]
pub struct PostgresDatabase {
    pub(crate) server: Server,
    pub(crate) programs: Programs,
    pub(crate) restoring: Restoring,
}

/// How to restore.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Restoring {
    pub(crate) in_place: bool,
    pub(crate) with_owners: bool,
    pub(crate) schemas: Vec<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) trust_sql: bool,
}

const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

const COUNT_FOR: Duration = Duration::from_secs(60);

/// The most shards: each is a connection to the server.
const MAX_SHARDS: usize = 32;

macro_rules! common {
    () => {
        /// A database by its URL: `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require`.
        ///
        /// Percent-encoded as libpq has it; a host that begins with `/` is the folder of a socket.
        /// Parameters: `sslmode` (`disable`, `prefer`, `require`, `verify-full`), `sslrootcert`
        /// (with `verify-full`, and only there), and the pieces themselves. Anything else is
        /// `Invalid`.
        pub fn from_url(url: impl Into<String>) -> Result<Self> {
            Self::new(Pieces {
                url: Some(Secret::new(url)),
                ..Pieces::default()
            })
        }

        /// A database by the variables of this process: `DATABASE_URL`, `PGHOST`, `PGPORT`,
        /// `PGUSER`, `PGPASSWORD`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGPASSFILE`,
        /// `POSTGRES_HOST`, `POSTGRES_PORT`, `POSTGRES_USER`, `POSTGRES_PASSWORD`, `POSTGRES_DB`,
        /// `BACKUP_PGDUMP_PATH` and `BACKUP_PGRESTORE_PATH`. Two that say different things are
        /// `Invalid`.
        pub fn from_env() -> Result<Self> {
            let vars = Vars::of_process();
            let mut this = Self::new(vars.pieces()?)?;
            this.programs = vars.programs();
            Ok(this)
        }

        /// The password, where the URL has none.
        #[must_use]
        pub fn password(mut self, password: impl Into<String>) -> Self {
            self.server.password = Some(Secret::new(password));
            self
        }

        /// Takes what is not set from the variables of this process: the password from `PGPASSWORD`,
        /// `PGPASSFILE` or `~/.pgpass`, programs from `BACKUP_PGDUMP_PATH` and `BACKUP_PGRESTORE_PATH`.
        pub fn with_env(mut self) -> Result<Self> {
            let vars = Vars::of_process();
            if self.server.password.is_none() {
                self.server.password = vars.password(&self.server)?;
            }
            self.programs = self.programs.or(vars.programs());
            Ok(self)
        }

        /// The folder with `pg_dump`, `pg_dumpall` and `pg_restore`.
        #[must_use]
        pub fn bin(mut self, folder: impl Into<PathBuf>) -> Self {
            self.programs.bin = Some(folder.into());
            self
        }

        /// Runs the programs behind `words`, where the server is a local one to them.
        #[must_use]
        pub fn prefix(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
            self.programs.prefix = words.into_iter().map(Into::into).collect();
            self
        }
    };
}

impl Postgres {
    common!();

    fn new(pieces: Pieces) -> Result<Self> {
        Ok(Self {
            server: pieces.server()?,
            programs: Programs::default(),
            shards: 1,
            lock_timeout: LOCK_TIMEOUT.into(),
            count_for: COUNT_FOR.into(),
        })
    }

    /// How long rows are counted while the dump runs, small tables first; what is left then has
    /// an estimate, which no restore is compared with. A minute by default.
    #[must_use]
    pub fn count_for(mut self, limit: Duration) -> Self {
        self.count_for = limit.into();
        self
    }

    /// How long the backup waits for somebody who is changing a table, before it fails. A minute
    /// by default.
    #[must_use]
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.lock_timeout = limit.into();
        self
    }

    /// Dumps the data in so many parts side by side, 32 at most. 1, the default, is one part with
    /// everything.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards.clamp(1, MAX_SHARDS);
        self
    }
}

impl PostgresDatabase {
    common!();

    fn new(pieces: Pieces) -> Result<Self> {
        Ok(Self {
            server: pieces.server()?,
            programs: Programs::default(),
            restoring: Restoring::default(),
        })
    }

    /// Restores into the database as it is, dropping what the backup has too
    /// (`pg_restore --clean --if-exists`), instead of beside it. Where the role may not create
    /// databases, and where other things in the database must stay.
    #[must_use]
    pub fn in_place(mut self, in_place: bool) -> Self {
        self.restoring.in_place = in_place;
        self
    }

    /// Restores owners and privileges too. Their roles must exist: the part
    /// [`GLOBALS`](crate::GLOBALS) has them.
    #[must_use]
    pub fn with_owners(mut self, with_owners: bool) -> Self {
        self.restoring.with_owners = with_owners;
        self
    }

    /// Agrees to feed plain SQL to `psql`, of a [`PostgresDump`](crate::PostgresDump): a program
    /// that may do whatever the role may, on the server and, by `psql`, on this machine.
    #[must_use]
    pub fn trust_sql(mut self, trust: bool) -> Self {
        self.restoring.trust_sql = trust;
        self
    }

    /// Restores only what is in these schemas.
    #[must_use]
    pub fn schemas(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.restoring.schemas = names.into_iter().map(Into::into).collect();
        self
    }

    /// Restores only these tables, by their bare names, without indexes and constraints; with
    /// [`schemas`](Self::schemas) only those there.
    #[must_use]
    pub fn tables(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.restoring.tables = names.into_iter().map(Into::into).collect();
        self
    }
}

impl fmt::Display for PostgresDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

/// Configuration of a source.
#[derive(Deserialize)]
struct SourceTable {
    #[serde(flatten)]
    pieces: Pieces,
    #[serde(flatten)]
    programs: Programs,
    shards: Option<usize>,
    lock_timeout: Option<Span>,
    count_for: Option<Span>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Configuration of a target.
#[derive(Deserialize)]
struct TargetTable {
    #[serde(flatten)]
    pieces: Pieces,
    #[serde(flatten)]
    programs: Programs,
    #[serde(flatten)]
    restoring: Restoring,
    /// The table of a source names a target too: the place that it reads.
    #[serde(rename = "shards")]
    _shards: Option<IgnoredAny>,
    #[serde(rename = "lock_timeout")]
    _lock_timeout: Option<IgnoredAny>,
    #[serde(rename = "count_for")]
    _count_for: Option<IgnoredAny>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl TryFrom<SourceTable> for Postgres {
    type Error = Error;

    fn try_from(table: SourceTable) -> Result<Self> {
        table.unknown.refuse()?;
        let shards = table.shards.unwrap_or(1);
        if !(1..=MAX_SHARDS).contains(&shards) {
            return Err(invalid(format!("`shards` is from 1 to {MAX_SHARDS}")));
        }
        let mut source = Self::new(table.pieces)?.shards(shards);
        source.programs = table.programs;
        source.lock_timeout = table.lock_timeout.unwrap_or(source.lock_timeout);
        source.count_for = table.count_for.unwrap_or(source.count_for);
        Ok(source)
    }
}

impl TryFrom<TargetTable> for PostgresDatabase {
    type Error = Error;

    fn try_from(table: TargetTable) -> Result<Self> {
        table.unknown.refuse()?;
        let mut target = Self::new(table.pieces)?;
        target.programs = table.programs;
        target.restoring = table.restoring;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_says_what_the_setters_say() {
        let read: Postgres = toml::from_str(
            "url = 'postgres://u@h/d'\npassword = 'canary'\nbin = '/pg'\nshards = 3\nlock_timeout = '5s'\ncount_for = '6s'\nprefix = ['ssh', 'h']",
        )
        .unwrap();
        let built = Postgres::from_url("postgres://u@h/d").unwrap();
        let built = built
            .password("canary")
            .bin("/pg")
            .shards(3)
            .lock_timeout(Duration::from_secs(5))
            .count_for(Duration::from_secs(6))
            .prefix(["ssh", "h"]);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        assert!(!format!("{read:#?}").contains("canary"));
        let read: PostgresDatabase = toml::from_str(
            "host = 'h'\nuser = 'u'\ndatabase = 'd'\nin_place = true\nschemas = ['a']",
        )
        .unwrap();
        let built = PostgresDatabase::from_url("postgres://u@h/d").unwrap();
        let built = built.in_place(true).schemas(["a"]);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
    }

    #[test]
    fn configuration_that_cannot_be_right_is_refused() {
        for bad in [
            "",
            "url = 'postgres://u@h/d'\nshard = 2",
            "url = 'postgres://u@h/d'\nshards = 0",
            "url = 'postgres://u@h/d'\nuser = 'v'",
            "url = 'postgres://u@h/d'\nin_place = true",
            "url = 'postgres://u@h/d'\nsslmode = 'allow'",
        ] {
            assert!(toml::from_str::<Postgres>(bad).is_err(), "{bad}");
        }
    }
}
