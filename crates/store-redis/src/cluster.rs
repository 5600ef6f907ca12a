//! All shards of a cluster, one after the other: each fork takes memory of its host.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::{ByteStream, Error, ErrorKind, Facts, PartWriter, Result};
use serde_json::{Value, json};

use crate::connection::{Connection, Reply};
use crate::server::Server;
use crate::{Redis, TOPOLOGY};

/// How many slots every cluster has (redis.io/docs/reference/cluster-spec).
const SLOTS: u64 = 16_384;

/// A master with the slots that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shard {
    id: String,
    host: String,
    port: u16,
    /// First and last of each range.
    slots: Vec<(u64, u64)>,
}

/// Writes `shard-1.rdb` and so on, in the order of their first slots, and [`TOPOLOGY`]. Each shard
/// is as it was at one moment, and they are at different moments. When slots moved meanwhile, or a
/// slot is on its way, it is an error: a key may be in two parts, or in none.
pub(crate) async fn back_up(source: &Redis, node: &Server, out: &PartWriter) -> Result<Facts> {
    let patience = Duration::from(source.timeout);
    let shards = shards(node, patience).await?;
    settled(node, &shards, patience).await?;
    let mut told = Vec::new();
    let mut keys = 0;
    for (index, shard) in shards.iter().enumerate() {
        let part = format!("shard-{}.rdb", index + 1);
        let server = node.at(&shard.host, shard.port);
        let facts = source.back_up(&server, &part, out).await?;
        keys += facts
            .get("keys")
            .and_then(|keys| keys.get("0"))
            .and_then(Value::as_u64)
            .unwrap_or(0);
        let facts = serde_json::to_value(facts)
            .map_err(|e| Error::new(ErrorKind::Other, "write down the shards").with_source(e))?;
        told.push(json!({
            "part": part, "node": shard.id, "slots": shard.slots, "facts": facts,
        }));
    }
    settled(node, &shards, patience).await?;
    if self::shards(node, patience).await? != shards {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!("slots of the cluster of {node} moved while it was backed up: try again"),
        ));
    }
    let topology = json!({ "shards": told });
    out.write(TOPOLOGY, ByteStream::from_bytes(format!("{topology:#}\n")))
        .await?;
    Ok(Facts::new()
        .with("server", "cluster")
        .with("entries", keys)
        .with("shards", told))
}

/// The masters by their first slots, as `CLUSTER SLOTS` has them (since 3.0). Every slot must have
/// one.
async fn shards(node: &Server, patience: Duration) -> Result<Vec<Shard>> {
    let mut connection = Connection::open(node, patience).await?;
    let ranges = connection.ask(&["CLUSTER", "SLOTS"]).await?;
    let mut by_id: BTreeMap<String, Shard> = BTreeMap::new();
    let mut next = 0;
    let mut ranges: Vec<_> = ranges
        .array()
        .iter()
        .filter_map(|r| range(r, node))
        .collect();
    ranges.sort_by_key(|(slots, _)| *slots);
    for ((first, last), shard) in ranges {
        if first != next {
            break;
        }
        next = last + 1;
        let known = by_id.entry(shard.id.clone()).or_insert(shard);
        known.slots.push((first, last));
    }
    if next != SLOTS {
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!("no node of the cluster of {node} has slot {next}: mend it first"),
        ));
    }
    let mut shards: Vec<Shard> = by_id.into_values().collect();
    shards.sort_by(|a, b| a.slots.cmp(&b.slots));
    Ok(shards)
}

/// No slot is on its way from one master to another: `CLUSTER SLOTS` does not show that, and keys
/// move meanwhile. Each node knows of its own slots alone (`CLUSTER NODES`).
async fn settled(node: &Server, shards: &[Shard], patience: Duration) -> Result<()> {
    for shard in shards {
        let master = node.at(&shard.host, shard.port);
        let mut connection = Connection::open(&master, patience).await?;
        let nodes = connection.ask_text(&["CLUSTER", "NODES"]).await?;
        if let Some(slot) = moving(&nodes) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "slot {slot} is on its way from or to {master}: finish or undo the migration \
                     (`redis-cli --cluster fix`), and back up then"
                ),
            ));
        }
    }
    Ok(())
}

/// A slot that comes or goes, of the node that says so: `[slot->-id]` and `[slot-<-id]` behind its
/// ranges.
fn moving(nodes: &str) -> Option<&str> {
    let mut lines = nodes.lines().map(|line| line.split(' '));
    let mut own = lines.find(|line| {
        let mut flags = line.clone().nth(2).unwrap_or_default().split(',');
        flags.any(|flag| flag == "myself")
    })?;
    own.find_map(|word| {
        word.strip_prefix('[')?
            .split_once('-')
            .map(|(slot, _)| slot)
    })
}

/// First and last slot, the master, and replicas. A node without a name is the one that was asked.
fn range(reply: &Reply, asked: &Server) -> Option<((u64, u64), Shard)> {
    let [first, last, master, ..] = reply.array() else {
        return None;
    };
    let slot = |reply: &Reply| u64::try_from(reply.integer()?).ok();
    let [host, port, id, ..] = master.array() else {
        return None;
    };
    let host = host.text().filter(|host| !["", "?"].contains(host));
    let shard = Shard {
        id: id.text()?.to_owned(),
        host: host.unwrap_or(&asked.host).to_owned(),
        port: u16::try_from(port.integer()?).ok()?,
        slots: Vec::new(),
    };
    Some(((slot(first)?, slot(last)?), shard))
}

#[cfg(test)]
mod tests {
    use super::moving;

    #[test]
    fn a_slot_that_moves_is_seen_on_the_node_s_own_line() {
        let own =
            "07c37df 10.0.0.1:7000@17000,a-b.example myself,master - 0 0 1 connected 0-99 101";
        let other = "67ed2db 10.0.0.2:7000@17000 master - 0 1 2 connected 102-200 [5->-07c37df]";
        let nodes = |more: &str| format!("{other}\n{own}{more}\n");
        assert_eq!(moving(&nodes("")), None);
        assert_eq!(moving(&nodes(" [93->-67ed2db]")), Some("93"));
        assert_eq!(moving(&nodes(" [77-<-67ed2db] [93->-67ed2db]")), Some("77"));
        assert_eq!(moving(other), None);
    }
}
