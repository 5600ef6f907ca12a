//! The last version of every key in a snapshot.
//!
//! Rows are ordered by revision, and pages in no way at all: which row is the last of its key is known
//! only when all were seen. So a snapshot is read three times, and nothing but a line for each key is
//! kept: once to know that it is whole and where its rows are, once for the last revision of each
//! key, and once for their values.

use std::collections::HashMap;

use backup_core::{PartReader, Result};
use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::DB;
use crate::page::{self, Head, Kind, Pages, corrupt};
use crate::rpc::{KeyValue, Lease};
use crate::snapshot::{checked, told};
use crate::walker::{KEYS, LEASES, Leaves};

/// Half of a SHA-256: whoever chooses keys shall not make two of them one.
type Name = [u8; 16];

fn name(key: &[u8]) -> Name {
    let mut name = Name::default();
    name.copy_from_slice(&Sha256::digest(key)[..16]);
    name
}

/// When a row was written: the transaction, and where in it.
type Revision = [u8; 17];

/// Which rows of a snapshot are the last of their keys.
pub(crate) struct Latest {
    prefix: Vec<u8>,
    leaves: Leaves,
    rows: HashMap<Name, Revision>,
    /// How long each lease was granted for, in seconds.
    pub(crate) leases: HashMap<i64, i64>,
    /// Whether there is a key of Kubernetes among them.
    pub(crate) kubernetes: bool,
}

impl Latest {
    /// Of the keys that begin with `prefix`. Reads the snapshot twice. Refuses a damaged one.
    pub(crate) async fn of(parts: &PartReader, prefix: &[u8]) -> Result<Self> {
        let (mut bytes, tell) = checked(parts.open(DB).await?);
        while let Some(chunk) = bytes.next().await {
            chunk?;
        }
        let mut latest = Self {
            prefix: prefix.to_vec(),
            leaves: told(tell)?.leaves,
            rows: HashMap::new(),
            leases: HashMap::new(),
            kubernetes: false,
        };
        let mut deleted = Vec::new();
        let mut reader = Reader::default();
        let mut bytes = parts.open(DB).await?;
        while let Some(chunk) = bytes.next().await {
            let rows = reader.feed(&chunk?, &latest.leaves)?;
            for lease in rows.leases {
                latest.leases.insert(lease.id, lease.ttl);
            }
            for row in rows.keys {
                if !row.content.key.starts_with(prefix) {
                    continue;
                }
                latest.kubernetes |= row.content.key.starts_with(b"/registry/");
                let name = name(&row.content.key);
                let newest = latest.rows.entry(name).or_insert(row.at);
                *newest = row.at.max(*newest);
                if row.is_deletion {
                    deleted.push((name, row.at));
                }
            }
        }
        for (name, at) in deleted {
            if latest.rows.get(&name) == Some(&at) {
                latest.rows.remove(&name);
            }
        }
        Ok(latest)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Their values, in no order, those in one answer of one read. Reads the snapshot once more.
    pub(crate) async fn values(&self, parts: &PartReader) -> Result<Values<'_>> {
        Ok(Values {
            latest: self,
            reader: Reader::default(),
            bytes: parts.open(DB).await?,
        })
    }
}

/// Keys and values, piece by piece.
pub(crate) struct Values<'a> {
    latest: &'a Latest,
    reader: Reader,
    bytes: backup_core::ByteStream,
}

impl Values<'_> {
    /// The next of them. `None` once the snapshot ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>> {
        let Some(chunk) = self.bytes.next().await else {
            return Ok(None);
        };
        let rows = self.reader.feed(&chunk?, &self.latest.leaves)?.keys;
        let last = rows.into_iter().filter(|row| {
            let (key, rows) = (&row.content.key, &self.latest.rows);
            key.starts_with(&self.latest.prefix) && rows.get(&name(key)) == Some(&row.at)
        });
        Ok(Some(last.map(|row| row.content).collect()))
    }
}

/// One change of one key.
struct Row {
    at: Revision,
    is_deletion: bool,
    content: KeyValue,
}

#[derive(Default)]
struct Rows {
    keys: Vec<Row>,
    leases: Vec<Lease>,
}

/// Finds the rows in the bytes of a snapshot that was walked already.
#[derive(Default)]
struct Reader {
    pages: Pages,
}

impl Reader {
    fn feed(&mut self, chunk: &Bytes, leaves: &Leaves) -> Result<Rows> {
        let (mut rows, mut broken) = (Rows::default(), false);
        self.pages.feed(chunk, |head, page, root| {
            broken |= rows.add(head, page, head.id == root, leaves).is_none();
        })?;
        match broken {
            false => Ok(rows),
            true => Err(corrupt("a row cannot be read")),
        }
    }
}

impl Rows {
    /// `None` where a row is not what it has to be.
    fn add(&mut self, head: Head, page: &[u8], is_root: bool, leaves: &Leaves) -> Option<()> {
        if head.kind != Kind::Leaf {
            return Some(());
        }
        let number = u32::try_from(head.id).ok()?;
        if is_root {
            for entry in page::entries(page, head.count) {
                let entry = entry?;
                let (first, inline) = page::bucket(entry.value)?;
                if first == 0 {
                    let count = Head::of(inline)?.count;
                    match entry.key {
                        KEYS => self.add_keys(inline, count)?,
                        LEASES => self.add_leases(inline, count)?,
                        _ => {}
                    }
                }
            }
        } else if leaves.keys.binary_search(&number).is_ok() {
            self.add_keys(page, head.count)?;
        } else if leaves.leases.binary_search(&number).is_ok() {
            self.add_leases(page, head.count)?;
        }
        Some(())
    }

    fn add_keys(&mut self, page: &[u8], count: u16) -> Option<()> {
        for entry in page::entries(page, count) {
            let entry = entry?;
            self.keys.push(Row {
                at: entry.key.get(..17)?.try_into().ok()?,
                is_deletion: entry.key.len() == 18,
                content: KeyValue::decode(entry.value).ok()?,
            });
        }
        Some(())
    }

    fn add_leases(&mut self, page: &[u8], count: u16) -> Option<()> {
        for entry in page::entries(page, count) {
            self.leases.push(Lease::decode(entry?.value).ok()?);
        }
        Some(())
    }
}
