//! The stores, places and targets in the box.

use std::sync::Arc;

use backup_core::{Result, Sink, Source, Target};
use sink_fs::FsSink;
use sink_s3::S3Options;
use store_command::{Command, CommandTarget, FileTarget};
use store_etcd::{Etcd, EtcdDataDir, EtcdServer};
use store_files::{Files, Folder};
use store_opensearch::{
    OpenSearch, OpenSearchCluster, OpenSearchSnapshot, OpenSearchSnapshotTarget,
};
use store_postgres::{Postgres, PostgresDatabase, PostgresDump};
use store_redis::{RdbFile, Redis, RedisServer};

use crate::Registry;
use crate::config::Options;

/// A registry with everything in the box.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry
        .sink("fs", fs)
        .sink("s3", s3)
        .source("files", files)
        .target("files", folder)
        .source("command", command)
        .target("command", command_target)
        .source("opensearch", opensearch)
        .target("opensearch", opensearch_cluster)
        .source("opensearch-snapshot", opensearch_snapshot)
        .target("opensearch-snapshot", opensearch_snapshot_target)
        .source("postgres", postgres)
        .source("postgres-dump", postgres_dump)
        .target("postgres", postgres_database)
        .source("redis", redis)
        .target("redis", redis_target)
        .source("etcd", etcd)
        .target("etcd", etcd_target);
    registry
}

fn fs(options: &Options) -> Result<Arc<dyn Sink>> {
    Ok(Arc::new(options.absolute("path").read::<FsSink>()?))
}

/// What the configuration does not say comes from the environment, as AWS's own tools have it.
fn s3(options: &Options) -> Result<Arc<dyn Sink>> {
    let options = options
        .absolute("ca_file")
        .reveal("access_key_id")?
        .reveal("secret_access_key")?
        .reveal("session_token")?;
    Ok(Arc::new(options.read::<S3Options>()?.with_env().build()?))
}

fn files(options: &Options) -> Result<Box<dyn Source>> {
    Ok(Box::new(options.absolute("path").read::<Files>()?))
}

fn folder(options: &Options) -> Result<Box<dyn Target>> {
    Ok(Box::new(options.absolute("path").read::<Folder>()?))
}

fn command(options: &Options) -> Result<Box<dyn Source>> {
    let options = options.absolute("directory").reveal("env")?;
    Ok(Box::new(options.read::<Command>()?))
}

/// A program that takes the bytes, or a file that gets them.
fn command_target(options: &Options) -> Result<Box<dyn Target>> {
    if options.text("path").is_some() {
        return Ok(Box::new(options.absolute("path").read::<FileTarget>()?));
    }
    let options = options.absolute("directory").reveal("env")?;
    Ok(Box::new(options.read::<CommandTarget>()?))
}

/// User and password that are not there are looked for in the environment.
fn opensearch(options: &Options) -> Result<Box<dyn Source>> {
    let source = opensearch_options(options)?.read::<OpenSearch>()?;
    Ok(Box::new(source.login_from_env()))
}

fn opensearch_cluster(options: &Options) -> Result<Box<dyn Target>> {
    let target = opensearch_options(options)?.read::<OpenSearchCluster>()?;
    Ok(Box::new(target.login_from_env()))
}

fn opensearch_snapshot(options: &Options) -> Result<Box<dyn Source>> {
    let source = opensearch_options(options)?.read::<OpenSearchSnapshot>()?;
    Ok(Box::new(source.login_from_env()))
}

fn opensearch_snapshot_target(options: &Options) -> Result<Box<dyn Target>> {
    let target = opensearch_options(options)?.read::<OpenSearchSnapshotTarget>()?;
    Ok(Box::new(target.login_from_env()))
}

fn opensearch_options(options: &Options) -> Result<Options> {
    let options = ["cacert", "cert", "key", "mounted"]
        .iter()
        .fold(options.clone(), |options, field| options.absolute(field));
    options.reveal("url")?.reveal("password")
}

/// A `url`, or its pieces, or both where they agree. Each secret may stand in a file or be the
/// output of a program; what is not there is looked for in the environment.
fn postgres(options: &Options) -> Result<Box<dyn Source>> {
    let source = postgres_options(options)?.read::<Postgres>()?;
    Ok(Box::new(source.with_env()?))
}

fn postgres_dump(options: &Options) -> Result<Box<dyn Source>> {
    let options = options.absolute("path").absolute("bin");
    Ok(Box::new(options.read::<PostgresDump>()?))
}

fn postgres_database(options: &Options) -> Result<Box<dyn Target>> {
    let options = postgres_options(options)?;
    let target = options.read::<PostgresDatabase>()?;
    Ok(Box::new(target.with_env()?))
}

fn postgres_options(options: &Options) -> Result<Options> {
    options.absolute("bin").reveal("url")?.reveal("password")
}

/// A `url`, a `path` or sentinels. A password that is not there is looked for where `redis-cli`
/// looks.
fn redis(options: &Options) -> Result<Box<dyn Source>> {
    let source = redis_options(options)?.read::<Redis>()?;
    Ok(Box::new(source.password_from_env()))
}

/// A server, or the file from which one starts.
fn redis_target(options: &Options) -> Result<Box<dyn Target>> {
    let options = redis_options(options)?;
    if options.text("path").is_some() {
        return Ok(Box::new(options.read::<RdbFile>()?));
    }
    let target = options.read::<RedisServer>()?;
    Ok(Box::new(target.password_from_env()))
}

fn redis_options(options: &Options) -> Result<Options> {
    let options = ["path", "cacert", "cert", "key"]
        .iter()
        .fold(options.clone(), |options, field| options.absolute(field));
    options.reveal("url")?.reveal("password")
}

/// A member. A login that is not there is looked for where `etcdctl` looks.
fn etcd(options: &Options) -> Result<Box<dyn Source>> {
    let source = etcd_options(options)?.read::<Etcd>()?;
    Ok(Box::new(source.login_from_env()))
}

/// A cluster that runs, or the data directory of a member that does not.
fn etcd_target(options: &Options) -> Result<Box<dyn Target>> {
    let options = etcd_options(options)?;
    if options.text("path").is_some() {
        return Ok(Box::new(options.read::<EtcdDataDir>()?));
    }
    let target = options.read::<EtcdServer>()?;
    Ok(Box::new(target.login_from_env()))
}

fn etcd_options(options: &Options) -> Result<Options> {
    let options = ["path", "cacert", "cert", "key"]
        .iter()
        .fold(options.clone(), |options, field| options.absolute(field));
    options.reveal("password")
}
