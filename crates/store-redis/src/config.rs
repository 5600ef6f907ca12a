//! Sources and targets as configuration writes them.

use std::net::SocketAddr;
use std::path::PathBuf;

use backup_core::Result;
use backup_core::retention::Span;
use backup_core::settings::Unknown;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::options::{Check, Place, RdbFile, Redis, RedisServer, Restoring};
use crate::sentinel::Sentinel;
use crate::server::{Pieces, invalid, split_port};

/// Configuration of a source.
#[derive(Deserialize)]
pub(crate) struct SourceTable {
    #[serde(flatten)]
    pieces: Pieces,
    path: Option<PathBuf>,
    sentinel: Option<SentinelTable>,
    #[serde(default)]
    cluster: bool,
    #[serde(default)]
    allow_unchecked: bool,
    max_age: Option<Span>,
    timeout: Option<Span>,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentinelTable {
    master: String,
    nodes: Vec<String>,
}

/// Configuration of a target.
#[derive(Deserialize)]
pub(crate) struct TargetTable {
    #[serde(flatten)]
    pieces: Pieces,
    path: Option<PathBuf>,
    listen: Option<SocketAddr>,
    advertise: Option<String>,
    #[serde(default)]
    append_only: bool,
    part: Option<String>,
    #[serde(default)]
    check: Check,
    timeout: Option<Span>,
    /// The table of a source names a target too: the place that it reads.
    #[serde(rename = "cluster")]
    _cluster: Option<IgnoredAny>,
    #[serde(rename = "allow_unchecked")]
    _allow_unchecked: Option<IgnoredAny>,
    #[serde(rename = "max_age")]
    _max_age: Option<IgnoredAny>,
    #[serde(flatten)]
    unknown: Unknown,
}

impl TryFrom<SourceTable> for Redis {
    type Error = backup_core::Error;

    fn try_from(table: SourceTable) -> Result<Self> {
        table.unknown.refuse()?;
        let of_url = table.pieces.url.is_some();
        let mut source = match (table.path, table.sentinel) {
            (None, None) => Self::new(table.pieces.server()?),
            (Some(path), None) if !of_url => Self::from_file(path),
            (None, Some(sentinel)) if !of_url => {
                let mut sentinel = Sentinel::new(sentinel.master, sentinel.nodes)?;
                sentinel.login = table.pieces.beside(sentinel.login)?;
                Self::at(Place::Sentinel(sentinel))
            }
            _ => {
                return Err(invalid(
                    "one of `url`, `path` and `sentinel` says where the data is",
                ));
            }
        };
        if table.cluster && !of_url {
            return Err(invalid("`cluster` goes with the `url` of one of its nodes"));
        }
        source.cluster = table.cluster;
        source.allow_unchecked = table.allow_unchecked;
        source.max_age = table.max_age;
        source.timeout = table.timeout.unwrap_or(source.timeout);
        Ok(source)
    }
}

impl TryFrom<TargetTable> for RedisServer {
    type Error = backup_core::Error;

    fn try_from(table: TargetTable) -> Result<Self> {
        table.unknown.refuse()?;
        if table.path.is_some() || table.append_only {
            return Err(invalid(
                "`path` and `append_only` are for a file, and not for a `url`",
            ));
        }
        let mut target = Self::new(table.pieces.server()?);
        target.listen = table.listen;
        target.advertise = table
            .advertise
            .map(|place| split_port(&place, 6379))
            .transpose()?;
        target.restoring = Restoring {
            part: table.part,
            check: table.check,
        };
        target.timeout = table.timeout.unwrap_or(target.timeout);
        Ok(target)
    }
}

impl TryFrom<TargetTable> for RdbFile {
    type Error = backup_core::Error;

    fn try_from(table: TargetTable) -> Result<Self> {
        table.unknown.refuse()?;
        let path = table.path.ok_or_else(|| invalid("no `path` of a file"))?;
        if table.listen.is_some() || table.advertise.is_some() || table.pieces.url.is_some() {
            return Err(invalid(
                "`url`, `listen` and `advertise` are for a server, and not for a `path`",
            ));
        }
        let mut target = Self::new(path).append_only(table.append_only);
        target.restoring.part = table.part;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn configuration_says_what_the_setters_say() {
        let read: Redis = toml::from_str(
            "url = 'redis://u@h'\npassword = 'canary'\ncluster = true\nallow_unchecked = true\ntimeout = '5s'",
        )
        .unwrap();
        let built = Redis::from_url("redis://h")
            .unwrap()
            .user("u")
            .password("canary");
        let built = built
            .cluster(true)
            .allow_unchecked(true)
            .timeout(Duration::from_secs(5));
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        assert!(!format!("{read:#?}").contains("canary"));

        let read: Redis = toml::from_str("path = '/d/dump.rdb'\nmax_age = '26h'").unwrap();
        let built = Redis::from_file("/d/dump.rdb").max_age(Duration::from_secs(26 * 3600));
        assert_eq!(format!("{read:?}"), format!("{built:?}"));

        let read: Redis = toml::from_str(
            "sentinel = { master = 'm', nodes = ['a', 'rediss://b:1'] }\nuser = 'u'",
        )
        .unwrap();
        let built = Redis::from_sentinel("m", ["a", "rediss://b:1"])
            .unwrap()
            .user("u");
        assert_eq!(format!("{read:?}"), format!("{built:?}"));

        let read: RedisServer = toml::from_str(
            "url = 'redis://h'\nlisten = '0.0.0.0:7000'\nadvertise = 'us:7001'\ncheck = 'counts'\npart = 'p'",
        )
        .unwrap();
        let built = RedisServer::from_url("redis://h")
            .unwrap()
            .part("p")
            .check(Check::Counts);
        let built = built
            .listen(([0, 0, 0, 0], 7000).into())
            .advertise("us", 7001);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));

        let read: RdbFile = toml::from_str("path = '/d/dump.rdb'\nappend_only = true").unwrap();
        let built = RdbFile::new("/d/dump.rdb").append_only(true);
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
    }

    #[test]
    fn the_table_of_a_source_names_the_same_place_as_a_target() {
        let server: RedisServer =
            toml::from_str("url = 'redis://h'\ncluster = true\nallow_unchecked = true").unwrap();
        assert_eq!(server.to_string(), "redis://h");
        let file: RdbFile = toml::from_str("path = '/d/dump.rdb'\nmax_age = '1d'").unwrap();
        assert_eq!(file.to_string(), "/d/dump.rdb");
    }

    #[test]
    fn configuration_that_cannot_be_right_is_refused() {
        for bad in [
            "",
            "url = 'redis://h'\npath = '/d'",
            "url = 'redis://h'\nshards = 2",
            "path = '/d'\ncluster = true",
            "sentinel = { master = 'm', nodes = [] }",
            "sentinel = { master = '', nodes = ['a'] }",
            "sentinel = { master = 'm', nodes = ['a'], quorum = 2 }",
            "url = 'redis://h'\ncert = '/c'",
        ] {
            assert!(toml::from_str::<Redis>(bad).is_err(), "{bad}");
        }
        for bad in [
            "path = '/d'",
            "url = 'redis://h'\nappend_only = true",
            "url = 'redis://h'\ncheck = 'none'",
        ] {
            assert!(toml::from_str::<RedisServer>(bad).is_err(), "{bad}");
        }
        for bad in [
            "url = 'redis://h'",
            "path = '/d'\nlisten = '0.0.0.0:1'",
            "path = '/d'\nx = 1",
        ] {
            assert!(toml::from_str::<RdbFile>(bad).is_err(), "{bad}");
        }
    }
}
