//! What is looked at before a server is touched.

use backup_core::{Error, ErrorKind, Facts, PartReader, Result};
use serde_json::Value;

use crate::connection::{Connection, Reply};
use crate::facts::{self, Info};
use crate::modules;
use crate::rdb::Version;

/// Whether the server can take the backup. Everything that would make it refuse, or end (too few
/// databases, data of a module that it has not: `rdbLoadRio` exits), is found here.
pub(crate) async fn check(
    control: &mut Connection,
    parts: &PartReader,
    part: &str,
) -> Result<Info> {
    let info = info(control).await?;
    let name = control.name.clone();
    let refused = |why: String| Err(Error::new(ErrorKind::Refused, why));
    not_loading(&info, &name)?;
    if info.is("cluster_enabled", "1") {
        return refused(format!(
            "{name} is a node of a cluster, and those are no replicas of others: restore a dump.rdb"
        ));
    }
    if !info.is("role", "master") {
        return refused(format!("{name} is a replica: restore into its primary"));
    }
    if setting(control, "tls-replication").await?.as_deref() == Some("yes") {
        return refused(format!(
            "{name} wants TLS for replication: set `tls-replication no` for the restore, or restore its dump.rdb"
        ));
    }
    let facts = facts_of(parts, part)?;
    let facts = &facts;
    let can = version(control, &info).await?;
    match facts::version(facts) {
        Some(version) if !version.loads_into(can) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{name} loads {can} and older, and the backup is {version}: restore into a newer server"
                ),
            ));
        }
        Some(_) => {}
        None => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("nothing says of which version part `{part}` is"),
            ));
        }
    }
    if let Some(last) = last_database(facts) {
        let selected = control.ask(&["SELECT", &last.to_string()]).await;
        selected.map_err(|e| {
            let what =
                format!("{name} has too few databases: the backup has a key in number {last}");
            Error::new(ErrorKind::Refused, what).with_source(e)
        })?;
    }
    if let Some(types) = facts.get("modules").and_then(Value::as_array) {
        let types: Vec<_> = types.iter().filter_map(Value::as_str).collect();
        let list = control.ask(&["MODULE", "LIST"]).await?;
        // Each is a list of names and values, its name first.
        let named = |module: &Reply| module.array().get(1)?.text().map(str::to_owned);
        let loaded: Vec<_> = list.array().iter().filter_map(named).collect();
        let loaded: Vec<_> = loaded.iter().map(String::as_str).collect();
        if let Some(kind) = modules::missing(&types, &loaded) {
            return refused(format!(
                "the backup has data of a module, of type {kind}, and {name} has no module for it: \
                 load that first"
            ));
        }
    }
    Ok(info)
}

/// `INFO`, without which nothing can be restored.
pub(crate) async fn info(control: &mut Connection) -> Result<Info> {
    let name = control.name.clone();
    Info::of(control).await?.ok_or_else(|| {
        Error::new(
            ErrorKind::Denied,
            format!("the user may not ask {name} for INFO"),
        )
    })
}

/// Nobody knows what a server holds that has just started.
pub(crate) fn not_loading(info: &Info, name: &str) -> Result<()> {
    match info.is("loading", "1") {
        true => Err(Error::new(
            ErrorKind::Unavailable,
            format!("{name} is loading its data: try again when it has"),
        )),
        false => Ok(()),
    }
}

/// One setting; `None`: there is none of this name, or the user may not ask.
pub(crate) async fn setting(control: &mut Connection, name: &str) -> Result<Option<String>> {
    match control.ask(&["CONFIG", "GET", name]).await {
        Ok(reply) => Ok(reply
            .array()
            .get(1)
            .and_then(Reply::text)
            .map(str::to_owned)),
        Err(error) if [ErrorKind::Denied, ErrorKind::Unsupported].contains(&error.kind()) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The newest format that the server loads: it stands in the last ten bytes of what `FUNCTION DUMP`
/// gives (since 7.0), ahead of a checksum, also where there is no function. Servers that do not know
/// the question are told apart by their version.
async fn version(control: &mut Connection, info: &Info) -> Result<Version> {
    let major = info.server().1.split('.').next();
    let major = major.and_then(|number| number.parse().ok()).unwrap_or(0);
    match (control.ask(&["FUNCTION", "DUMP"]).await, major) {
        (Ok(Reply::Text(dump)), _) if dump.len() >= 10 => {
            let at = dump.len() - 10;
            Ok(Version(u16::from_le_bytes([dump[at], dump[at + 1]]).into()))
        }
        (Ok(_), _) => Err(control.broken("its answer to FUNCTION DUMP is none")),
        (Err(error), 0..7) if error.kind() == ErrorKind::Unsupported => {
            Ok(Version(if major >= 5 { 9 } else { 8 }))
        }
        (Err(error), _) => Err(error.context(format!(
            "ask {} which format it loads, for which the user needs +function|dump",
            control.name
        ))),
    }
}

/// The facts of one part: of a cluster each shard has its own.
fn facts_of(parts: &PartReader, part: &str) -> Result<Facts> {
    let facts = parts.facts();
    let Some(shards) = facts.get("shards").and_then(Value::as_array) else {
        return Ok(facts.clone());
    };
    let names = || {
        let names = shards
            .iter()
            .filter_map(|shard| shard.get("part")?.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let shard = shards
        .iter()
        .find(|shard| shard.get("part").and_then(Value::as_str) == Some(part));
    let own = shard.and_then(|shard| shard.get("facts")).ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            format!(
                "the backup is of a cluster: say which `part` to restore, of {}",
                names()
            ),
        )
    })?;
    serde_json::from_value(own.clone())
        .map_err(|e| Error::new(ErrorKind::Corrupt, format!("facts of `{part}`")).with_source(e))
}

fn last_database(facts: &Facts) -> Option<u64> {
    let keys = facts.get("keys")?.as_object()?;
    keys.keys()
        .filter_map(|database| database.parse().ok())
        .max()
}
