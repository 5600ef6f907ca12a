//! Sources and targets as configuration writes them.

use std::path::PathBuf;

use backup_core::retention::Span;
use backup_core::settings::Unknown;
use backup_core::{Result, Secret};
use serde::Deserialize;

use crate::options::{BUMP, Conflict, Etcd, EtcdDataDir, EtcdServer, Leases};
use crate::server::{Endpoint, Server, Tls};

/// Where a server is, and as whom to talk to it.
#[derive(Deserialize)]
struct Pieces {
    url: Endpoint,
    user: Option<String>,
    password: Option<Secret>,
    cacert: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Pieces {
    fn server(self) -> Result<Server> {
        let server = Server {
            endpoint: self.url,
            user: self.user,
            password: self.password,
            tls: Tls {
                cacert: self.cacert,
                cert: self.cert,
                key: self.key,
            },
        };
        server.checked()
    }
}

/// Configuration of a source.
#[derive(Deserialize)]
pub(crate) struct SourceTable {
    #[serde(flatten)]
    pieces: Pieces,
    timeout: Option<Span>,
    deadline: Option<Span>,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Configuration of a cluster that runs.
#[derive(Deserialize)]
pub(crate) struct ServerTable {
    #[serde(flatten)]
    pieces: Pieces,
    timeout: Option<Span>,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    conflict: Conflict,
    #[serde(default)]
    leases: Leases,
    #[serde(default)]
    kubernetes: bool,
    #[serde(flatten)]
    unknown: Unknown,
}

/// Configuration of a data directory.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DirectoryTable {
    path: PathBuf,
    etcdutl: Option<PathBuf>,
    name: Option<String>,
    initial_cluster: Option<String>,
    initial_cluster_token: Option<String>,
    initial_advertise_peer_urls: Option<String>,
    bump_revision: Option<u64>,
}

impl TryFrom<SourceTable> for Etcd {
    type Error = backup_core::Error;

    fn try_from(table: SourceTable) -> Result<Self> {
        table.unknown.refuse()?;
        let mut source = Self::at(table.pieces.server()?);
        source.timeout = table.timeout.unwrap_or(source.timeout);
        source.deadline = table.deadline.unwrap_or(source.deadline);
        Ok(source)
    }
}

impl TryFrom<ServerTable> for EtcdServer {
    type Error = backup_core::Error;

    fn try_from(table: ServerTable) -> Result<Self> {
        table.unknown.refuse()?;
        let target = Self::at(table.pieces.server()?);
        Ok(Self {
            timeout: table.timeout.unwrap_or(target.timeout),
            prefix: table.prefix.into_bytes(),
            conflict: table.conflict,
            leases: table.leases,
            kubernetes: table.kubernetes,
            ..target
        })
    }
}

impl TryFrom<DirectoryTable> for EtcdDataDir {
    type Error = backup_core::Error;

    fn try_from(table: DirectoryTable) -> Result<Self> {
        let target = Self::new(table.path);
        Ok(Self {
            etcdutl: table.etcdutl.unwrap_or(target.etcdutl),
            name: table.name,
            initial_cluster: table.initial_cluster,
            initial_cluster_token: table.initial_cluster_token,
            initial_advertise_peer_urls: table.initial_advertise_peer_urls,
            bump_revision: table.bump_revision.unwrap_or(BUMP),
            path: target.path,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn configuration_says_what_the_setters_say() {
        let read: Etcd = toml::from_str(
            "url = 'https://h'\nuser = 'root'\npassword = 'canary'\ncacert = '/ca'\ncert = '/c'\nkey = '/k'\ntimeout = '5s'\ndeadline = '10m'",
        )
        .unwrap();
        let built = Etcd::from_url("https://h").unwrap().user("root", "canary");
        let built = built
            .cacert("/ca")
            .certificate("/c", "/k")
            .timeout(Duration::from_secs(5))
            .deadline(Duration::from_secs(600));
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        assert!(!format!("{read:#?}").contains("canary"));

        let read: EtcdDataDir = toml::from_str(
            "path = '/d'\netcdutl = '/u'\nname = 'a'\ninitial_cluster = 'a=http://a:2380'\ninitial_cluster_token = 't'\ninitial_advertise_peer_urls = 'http://a:2380'\nbump_revision = 0",
        )
        .unwrap();
        let built = EtcdDataDir::new("/d").etcdutl("/u").name("a");
        let built = built
            .initial_cluster("a=http://a:2380")
            .initial_cluster_token("t")
            .initial_advertise_peer_urls("http://a:2380")
            .bump_revision(0);
        assert_eq!(read, built);

        let read: EtcdServer = toml::from_str(
            "url = 'http://h'\nuser = 'a'\npassword = 'canary'\ntimeout = '5s'\nprefix = '/app/'\nconflict = 'skip'\nleases = 'drop'\nkubernetes = true",
        )
        .unwrap();
        let built = EtcdServer::from_url("http://h")
            .unwrap()
            .user("a", "canary");
        let built = built
            .timeout(Duration::from_secs(5))
            .prefix("/app/")
            .conflict(Conflict::Skip)
            .leases(Leases::Drop)
            .kubernetes(true);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        assert_eq!(read.to_string(), "http://h:2379");
    }

    #[test]
    fn configuration_that_cannot_be_right_is_refused() {
        for bad in [
            "",
            "url = 'ftp://h'",
            "url = 'h'\nusr = 'x'",
            "url = 'h'\nuser = 'root'",
            "url = 'h'\ncacert = '/ca'",
            "url = 'https://h'\ncert = '/c'",
        ] {
            assert!(toml::from_str::<Etcd>(bad).is_err(), "{bad}");
        }
        for bad in ["", "url = 'h'\nconflict = 'merge'"] {
            assert!(toml::from_str::<EtcdServer>(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "path = '/d'\nwal = '/w'",
            "path = '/d'\nbump_revision = -1",
        ] {
            assert!(toml::from_str::<EtcdDataDir>(bad).is_err(), "{bad}");
        }
    }
}
