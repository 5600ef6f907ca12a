//! Which part of a sharded dump has which tables.

use crate::snapshot::Table;

/// How many tables are named at most: the arguments of a program are bounded. All others are
/// in the last shard.
const NAMED: usize = 512;

/// No data of any table, and no sequence.
pub(crate) const NO_TABLE: &str = "--exclude-table-data=*.*";

/// The data of some tables, or of all the others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shard {
    Tables(Vec<String>),
    /// Every table but these, and all sequences: nothing can fall between.
    Others(Vec<String>),
}

impl Shard {
    /// What tells `pg_dump` so. Names are patterns to it, in which quotes make everything literal
    /// but `$` (PostgreSQL documentation, psql, Patterns). Large objects are in none of them.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let (option, tables) = match self {
            // More shards than tables; without a name `pg_dump` would take them all.
            Self::Tables(tables) if tables.is_empty() => {
                return vec![NO_TABLE.into(), "--no-blobs".into()];
            }
            Self::Tables(tables) => ("table", tables),
            Self::Others(tables) => ("exclude-table-data", tables),
        };
        let name = |table: &String| format!("--{option}={table}");
        let mut arguments: Vec<String> = tables.iter().map(name).collect();
        arguments.push("--no-blobs".into());
        arguments
    }
}

/// The name of the part with the `number`th shard, from 1.
pub(crate) fn part(number: usize) -> String {
    format!("data-{number}.dump")
}

/// `tables`, the smallest first, in `count` shards of about the same size.
pub(crate) fn balance(tables: &[Table], count: usize) -> Vec<Shard> {
    let mut shards = vec![(0, Vec::new()); count.max(1)];
    let last = shards.len() - 1;
    let simple = |table: &&Table| table.rows && !table.name.contains(['$', '"']);
    for table in tables.iter().rev().filter(simple).take(NAMED) {
        if let Some(smallest) = (0..=last).min_by_key(|i| shards[*i].0) {
            shards[smallest].0 += table.bytes.max(1);
            if smallest != last {
                shards[smallest].1.push(table.name.clone());
            }
        }
    }
    let named = shards
        .iter()
        .flat_map(|(_, tables)| tables.clone())
        .collect();
    let mut shards: Vec<Shard> = shards
        .into_iter()
        .take(last)
        .map(|(_, tables)| Shard::Tables(tables))
        .collect();
    shards.push(Shard::Others(named));
    shards
}
