//! OpenSearch: its indices, data streams and templates, read at one moment, and the way back.
//!
//! ```
//! # fn main() -> backup_core::Result<()> {
//! use store_opensearch::{OpenSearch, OpenSearchCluster};
//!
//! let _source = OpenSearch::from_url("https://backup@search.internal:9200")?.password("secret");
//! let cluster = OpenSearchCluster::from_url("https://admin@search-2.internal:9200")?;
//! assert_eq!(cluster.to_string(), "https://search-2.internal:9200");
//! let _beside = cluster.indices(["orders"]).rename("restored-*")?;
//! # Ok(()) }
//! ```
//!
//! The same in configuration:
//!
//! ```
//! # let source: store_opensearch::OpenSearch = toml::from_str(r#"
//! url = "https://backup@search.internal:9200"
//! password = "secret"                          # the program takes password_file as well
//! cacert = "/etc/ssl/search-ca.crt"            # and cert, key: as curl has them
//! indices = ["orders", "logs-*", "-logs-test"] # and data streams; all by default
//! # "#).unwrap();
//! # assert!(!format!("{source:?}").contains("secret"));
//! ```
//!
//! - **What is in a backup.** [`CREATE`]: scripts, pipelines, templates, and each index with its
//!   mapping and settings, as the requests that make them. One part for each shard with its
//!   documents, as the lines that `_bulk` takes: `orders.0.ndjson`. [`FINISH`]: settings that wait
//!   for the documents, and all aliases, in one step. `curl` gives them back.
//! - **One moment.** All indices have their points in time opened together before anything is read,
//!   and whoever writes meanwhile changes nothing in the backup. A shard's point is exact; two of
//!   them are as far apart as the server takes to open both. What was read is counted against
//!   them.
//! - **Snapshots** of the server itself, [`OpenSearchSnapshot`], have what cannot be read as documents,
//!   and come back without being indexed again. They go through the pipeline, for who shares a folder
//!   with all nodes; or they stay in a repository of the cluster, and the backup is a receipt.
//! - **Not in it**: the server's own indices (their names begin with a dot) unless a pattern names
//!   them, users and roles, cluster settings, versions of documents, how a data stream is divided
//!   into indices. Indices that do not keep the `_source` of their documents cannot be read this
//!   way, and are refused. A stream comes back as one index, with the newest mapping of each field:
//!   one whose indices share an id, or whose older documents do not fit that mapping, is refused
//!   when it is restored. Take a snapshot of it.
//! - **Rights**, with the security plugin: `cluster_monitor`, `indices:admin/resolve/index`,
//!   `indices:admin/get`, `indices:data/read/search` and the `point_in_time` actions on the indices;
//!   `cluster:admin/ingest/pipeline/get`, `cluster:admin/search/pipeline/get` and the `get` actions
//!   of templates. A request that is denied ends the backup, and says which it was. What is hidden
//!   without a word is not in the backup, and nobody can tell: the roles of the user must not filter
//!   documents or fields (DLS, FLS, masking), and the plugin's `do_not_fail_on_forbidden` must be off.
//! - **The way back**, [`OpenSearchCluster`]: whole, selected or renamed indices into a cluster of the
//!   same or another version. Everything is hashed before a byte is written; documents are counted
//!   before an alias points to them.
//! - **Versions.** OpenSearch from 2.9 on; tried with 2.19 and 3.8, without their security plugin:
//!   its refusals are tested with what it is known to answer.
//!
//! Needs a tokio runtime with I/O and time enabled.

mod bulk;
mod client;
mod config;
mod count;
mod failure;
mod moment;
mod names;
mod options;
mod pages;
mod requests;
mod restoring;
mod schema;
mod server;
mod settings;
mod snapshot;
mod source;
mod target;
mod unfinished;

pub use options::{Aliases, Conflict, OpenSearch, OpenSearchCluster};
pub use snapshot::{OpenSearchSnapshot, OpenSearchSnapshotTarget, REPOSITORY, RESTORE};

/// What kind of backup this crate writes and takes.
const KIND: &str = "opensearch";

/// The part with what comes before documents.
pub const CREATE: &str = "create.requests";
/// The part with what comes after them.
pub const FINISH: &str = "finish.requests";
