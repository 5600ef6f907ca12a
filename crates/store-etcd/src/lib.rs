//! etcd: snapshots over the network, checked while they stream, and the way back.
//!
//! ```
//! # fn main() -> backup_core::Result<()> {
//! use store_etcd::{Etcd, EtcdDataDir};
//!
//! let _source = Etcd::from_url("https://etcd-1.internal:2379")?.user("root", "secret");
//! let target = EtcdDataDir::new("/var/lib/etcd").name("etcd-1");
//! assert_eq!(target.to_string(), "/var/lib/etcd");
//! # Ok(()) }
//! ```
//!
//! The same in configuration:
//!
//! ```
//! # let source: store_etcd::Etcd = toml::from_str(r#"
//! url = "https://etcd-1.internal:2379"         # one member: a snapshot is of one
//! user = "root"                                # where the cluster has `auth enable`
//! password = "s3cr3t"                          # the program takes password_file as well
//! cacert = "/etc/etcd/ca.crt"                  # and cert, key: as etcdctl has them
//! # "#).unwrap();
//! # assert!(!format!("{source:?}").contains("s3cr3t"));
//! # let _: store_etcd::EtcdDataDir = toml::from_str(r#"
//! path = "/var/lib/etcd"                       # the data directory of a member that does not run
//! name = "etcd-1"
//! initial_cluster = "etcd-1=https://etcd-1.internal:2380"
//! initial_advertise_peer_urls = "https://etcd-1.internal:2380"
//! # "#).unwrap();
//! # let _: store_etcd::EtcdServer = toml::from_str(r#"
//! url = "https://etcd-1.internal:2379"         # or a cluster that runs: the values of its keys
//! prefix = "/app/"                             # of these alone
//! conflict = "skip"                            # what is there stays; `overwrite`, or `fail`, the default
//! leases = "drop"                              # or `grant`, the default: each key gets one like its own
//! # "#).unwrap();
//! ```
//!
//! - **What is in a backup.** [`DB`]: the file that `etcdctl snapshot save` writes, the database of one
//!   member and its SHA-256.
//! - **Checked while it streams**, without a file and without another program: the hash at its end, the
//!   tree of pages, and that it has every change that the cluster had agreed on before it began. What
//!   the server then says of its own contents at that revision (`HashKV`) must be the same.
//! - **What changed since.** Where the job is incremental, a backup is its parent and the changes since,
//!   one part `changes-FIRST-LAST.jsonl` of revisions without a gap, and comes back at any of them
//!   (option `revision`). Compaction gives changes up: back up more often than that, or get full ones.
//!   Users, roles and leases are those of the snapshot; where users or roles changed, the backup is a
//!   full one, but for etcd 3.4, which does not tell. A restore holds the largest transaction in memory.
//! - **Rights.** With `auth enable` a user with the role `root`: etcd gives snapshots to nobody else.
//! - **The way back** is a data directory for each member, by `etcdutl`, with the revision raised
//!   ([`EtcdDataDir`]); or the values of some keys or all, put into a cluster that runs ([`EtcdServer`]).
//! - **Versions**: 3.4 to 3.6, tried with 3.6.16 and Debian's 3.4.23.
//!
//! Needs a tokio runtime with I/O and time enabled.

#![cfg(unix)]

mod changes;
mod client;
mod config;
mod crc;
mod data_dir;
mod graft;
mod latest;
mod lines;
mod options;
mod page;
mod reach;
mod rows;
mod rpc;
mod server;
mod snapshot;
mod source;
mod target;
mod walker;

pub use options::{Conflict, Etcd, EtcdDataDir, EtcdServer, Leases};

/// What kind of backup this crate writes and takes.
const KIND: &str = "etcd";

/// The part with the snapshot.
pub const DB: &str = "snapshot.db";
