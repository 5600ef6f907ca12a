#![doc = include_str!("../README.md")]

pub use backup_core::*;

#[cfg(feature = "fs")]
pub use sink_fs as fs;
#[cfg(feature = "s3")]
pub use sink_s3 as s3;
#[cfg(feature = "command")]
pub use store_command as command;
#[cfg(feature = "etcd")]
pub use store_etcd as etcd;
#[cfg(feature = "files")]
pub use store_files as files;
#[cfg(feature = "opensearch")]
pub use store_opensearch as opensearch;
#[cfg(feature = "postgres")]
pub use store_postgres as postgres;
#[cfg(feature = "redis")]
pub use store_redis as redis;
