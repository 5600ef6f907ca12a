//! What is known of a server and of its snapshot.

use std::collections::BTreeMap;

use backup_core::{ErrorKind, Facts, Result};
use serde_json::{Map, Value};

use crate::connection::Connection;
use crate::rdb::{Content, Summary, Version};

/// The fields of `INFO`.
#[derive(Debug, Default)]
pub(crate) struct Info(BTreeMap<String, String>);

impl Info {
    /// `None`: the user may not ask.
    pub(crate) async fn of(connection: &mut Connection) -> Result<Option<Self>> {
        match connection.ask_text(&["INFO"]).await {
            Ok(text) => Ok(Some(Self::parse(&text))),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == value
    }

    /// `redis` or `valkey`, and its version. Valkey says `redis_version:7.2.4` for those who ask
    /// for no more.
    pub(crate) fn server(&self) -> (&str, &str) {
        match self.get("valkey_version") {
            "" => ("redis", self.get("redis_version")),
            version => ("valkey", version),
        }
    }

    /// Keys by database: `db0:keys=3,expires=1,…`.
    pub(crate) fn keys(&self) -> BTreeMap<u64, u64> {
        let entry = |(name, value): (&String, &String)| {
            let database = name.strip_prefix("db")?.parse().ok()?;
            let keys = value.strip_prefix("keys=")?.split(',').next()?;
            Some((database, keys.parse().ok()?))
        };
        self.0.iter().filter_map(entry).collect()
    }
}

/// Facts of a snapshot: `magic`, `rdb_version`, `bytes`, `crc`, `structure`, and where it was walked
/// `keys` by database, `expires`, `functions`, `modules`, `created` (seconds since 1970).
pub(crate) fn of_summary(facts: Facts, summary: &Summary) -> Facts {
    let facts = facts
        .with("magic", summary.version.magic())
        .with("rdb_version", summary.version.0)
        .with("bytes", summary.bytes)
        .with(
            "crc",
            if summary.checksum {
                "checked"
            } else {
                "disabled"
            },
        );
    let Some(content) = &summary.content else {
        return facts.with("structure", "unchecked");
    };
    let mut facts = facts
        .with("structure", "checked")
        .with("keys", by_database(&content.keys))
        .with("expires", content.expires)
        .with("functions", content.functions);
    if !content.modules.is_empty() {
        facts = facts.with("modules", content.modules.clone());
    }
    if let Some(created) = created(content) {
        facts = facts.with("created", created);
    }
    facts
}

pub(crate) fn created(content: &Content) -> Option<u64> {
    content.aux.get("ctime")?.parse().ok()
}

fn by_database(keys: &BTreeMap<u64, u64>) -> Value {
    let pairs = keys
        .iter()
        .map(|(database, keys)| (database.to_string(), (*keys).into()));
    Value::Object(pairs.collect::<Map<_, _>>())
}

/// The version of the format that facts name.
pub(crate) fn version(facts: &Facts) -> Option<Version> {
    let number = facts.get("rdb_version")?.as_u64()?;
    u32::try_from(number).ok().map(Version)
}
