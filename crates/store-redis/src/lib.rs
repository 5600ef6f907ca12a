//! Redis and Valkey: snapshots over the replication protocol, and the way back over it.
//!
//! ```
//! # fn main() -> backup_core::Result<()> {
//! use store_redis::{RdbFile, Redis, RedisServer};
//!
//! let _source = Redis::from_url("redis://backup@cache.internal")?.password("secret");
//! let server = RedisServer::from_url("redis://admin@cache-2.internal:6380")?;
//! assert_eq!(server.to_string(), "redis://cache-2.internal:6380");
//! let _file = RdbFile::new("/var/lib/redis/dump.rdb");
//! # Ok(()) }
//! ```
//!
//! The same in configuration:
//!
//! ```
//! # let source: store_redis::Redis = toml::from_str(r#"
//! url = "rediss://backup@cache.internal"       # TLS; or redis://
//! password = "secret"                          # the program takes password_file as well
//! cacert = "/etc/ssl/redis-ca.crt"             # and cert, key: as redis-cli has them
//! cluster = true                               # all shards of the cluster; one server by default
//! # "#).unwrap();
//! # assert!(!format!("{source:?}").contains("secret"));
//! # let _: store_redis::Redis = toml::from_str(r#"
//! path = "/var/lib/redis/dump.rdb"             # instead of a url: what the server saved last
//! max_age = "26h"
//! # "#).unwrap();
//! # let _: store_redis::Redis = toml::from_str(r#"
//! sentinel = { master = "cache", nodes = ["s1.internal:26379", "s2.internal:26379"] }
//! # "#).unwrap();
//! ```
//!
//! - **What is in a backup.** [`DUMP`]: all databases and functions at one moment, as the server
//!   itself writes them to a replica. Nothing is installed beside the server, nothing is read from
//!   its disk, and it goes on working: it forks, as for a replica. Of a cluster `shard-1.rdb` and
//!   so on, each at its own moment, and [`TOPOLOGY`].
//! - **Rights**: `+psync +replconf +ping`, and `+info` for the facts. `+cluster|slots
//!   +cluster|nodes` for a cluster, and `+role` for a server that sentinels name.
//! - **Checked while it streams**: structure to the last key, and the checksum of the format. Half
//!   of a snapshot, or one that is damaged, is no backup.
//! - **The way back** is a running server, which becomes a replica of this program for as long as
//!   it takes ([`RedisServer`]; rights: `+replicaof +info +config|get +select +function|dump
//!   +module|list +bgsave +psync +replconf +ping`, and the server must reach this host), or the file
//!   from which a stopped one starts ([`RdbFile`]).
//! - **Versions.** Redis from 4.0 on and Valkey; tried with 7.0, 8.2 and Valkey 9.1. A backup goes
//!   back into a server that knows its format: of the same version or a newer one. Valkey does not
//!   load what Redis writes from 7.4 on, nor the other way round.
//!
//! Needs a tokio runtime with I/O and time enabled.

#![cfg(unix)]

mod append_only;
mod attached;
mod capture;
mod cluster;
mod config;
mod connection;
mod durable;
mod facts;
mod file;
mod framing;
mod modules;
mod options;
mod owner;
mod preflight;
mod primary;
mod rdb;
mod sentinel;
mod server;
mod source;
mod target;
mod tls;

pub use options::{Check, RdbFile, Redis, RedisServer};

/// What kind of backup this crate writes and takes.
const KIND: &str = "redis";

/// The part with a server's snapshot: the `dump.rdb` that it would save.
pub const DUMP: &str = "dump.rdb";
/// Of a cluster: which part has which slots.
pub const TOPOLOGY: &str = "topology.json";
