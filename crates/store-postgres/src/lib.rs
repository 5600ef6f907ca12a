//! PostgreSQL: dumps of a database by `pg_dump`, restored by `pg_restore`.
//!
//! ```
//! # fn main() -> backup_core::Result<()> {
//! use store_postgres::{Postgres, PostgresDatabase};
//!
//! let _source = Postgres::from_url("postgres://backup@db.internal/orders")?.password("secret");
//! let target = PostgresDatabase::from_url("postgres://admin@db.internal/orders_restored")?;
//! assert_eq!(target.to_string(), "postgres://db.internal/orders_restored");
//! # Ok(()) }
//! ```
//!
//! The same in configuration:
//!
//! ```
//! # let source: store_postgres::Postgres = toml::from_str(r#"
//! url = "postgres://backup@db.internal/orders?sslmode=require"   # or host, port, user, database
//! password = "secret"                                  # the program takes password_file as well
//! shards = 4                                           # data in 4 parts side by side; 1 by default
//! # "#).unwrap();
//! # assert!(!format!("{source:?}").contains("secret"));
//! ```
//!
//! - **What is in a backup.** [`GLOBALS`], the roles and tablespaces of the server as SQL, and
//!   [`DUMP`], the database as `pg_dump --format=custom` writes it, uncompressed: the pipeline
//!   compresses. With [`shards`](Postgres::shards) it is [`PRE_DATA`], `data-1.dump` to
//!   `data-N.dump`, [`LARGE_OBJECTS`] and [`POST_DATA`], all of one snapshot. `pg_restore` takes
//!   each of them. A [`PostgresDump`] is a dump that was made elsewhere.
//! - **One moment.** Every table is locked against changes of its shape, then the snapshot is
//!   taken, then dumped and counted: what is counted is what is dumped.
//! - **The way back** is a new database, checked against the counts of the backup. What it
//!   replaces is dropped last. Shards come back side by side, and so do indexes afterwards, over as
//!   many connections; the schema that names them is held in memory meanwhile.
//! - **Programs.** `pg_dump`, `pg_dumpall` and `pg_restore` of the server's major version or newer:
//!   from `bin`, else from where Debian and postgresql.org's packages put them, else from `PATH`.
//!   Behind a [`prefix`](Postgres::prefix) they run elsewhere, as in
//!   `["docker", "compose", "exec", "-T", "-e", "PGPASSWORD", "db"]`.
//! - **Secrets.** The password reaches a program in `PGPASSWORD` and nothing else, and what this
//!   process has in other variables that look like secrets does not reach it.
//!
//! Needs a tokio runtime with I/O and time enabled.

#![cfg(unix)]

mod create;
mod dump;
mod env;
mod fill;
mod jobs;
mod options;
mod plain;
mod programs;
mod room;
mod server;
mod shards;
mod snapshot;
mod source;
mod sql;
mod swap;
mod target;
mod tls;

pub use dump::PostgresDump;
pub use options::{Postgres, PostgresDatabase};

/// What kind of backup this crate writes and takes.
const KIND: &str = "postgres";

/// The part with roles and tablespaces, for `psql`.
pub const GLOBALS: &str = "globals.sql";
/// The part with the database, for `pg_restore`.
pub const DUMP: &str = "db.dump";
/// The part with a database that somebody else dumped as plain SQL, for `psql`.
pub const SQL: &str = "db.sql";
/// Of a sharded dump: what comes before the data.
pub const PRE_DATA: &str = "pre-data.dump";
/// Of a sharded dump: large objects, if there are any.
pub const LARGE_OBJECTS: &str = "large-objects.dump";
/// Of a sharded dump: indexes, constraints, triggers.
pub const POST_DATA: &str = "post-data.dump";
