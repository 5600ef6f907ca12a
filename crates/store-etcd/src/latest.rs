//! The last version of every key in a backup.
//!
//! Rows are ordered by revision, and pages in no way at all: which row is the last of its key is known
//! only when all were seen. So a snapshot is read three times, and nothing but a line for each key is
//! kept: once to know that it is whole and where its rows are, once for the last revision of each
//! key, and once for their values.

use std::collections::HashMap;

use backup_core::{ByteStream, PartReader, Result};
use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::DB;
use crate::lines::{self, At, Lines, Row};
use crate::page::{self, Head, Kind, Pages, corrupt};
use crate::reach::Reach;
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

/// Which rows of a backup are the last of their keys.
pub(crate) struct Latest {
    prefix: Vec<u8>,
    reach: Reach,
    leaves: Leaves,
    rows: HashMap<Name, At>,
    /// How long each lease was granted for, in seconds.
    pub(crate) leases: HashMap<i64, i64>,
    /// Whether there is a key of Kubernetes among them.
    pub(crate) kubernetes: bool,
}

impl Latest {
    /// Of the keys that begin with `prefix`, at the revision that is wanted. Reads the backup twice.
    /// Refuses a damaged one.
    pub(crate) async fn of(parts: &PartReader, prefix: &[u8], wanted: Option<i64>) -> Result<Self> {
        let (mut bytes, tell) = checked(parts.open(DB).await?);
        while let Some(chunk) = bytes.next().await {
            chunk?;
        }
        let summary = told(tell)?;
        let lowest = summary.compacted.unwrap_or(1);
        let mut latest = Self {
            prefix: prefix.to_vec(),
            reach: Reach::of(parts, (lowest, summary.revision), wanted)?,
            leaves: summary.leaves,
            rows: HashMap::new(),
            leases: HashMap::new(),
            kubernetes: false,
        };
        let (mut seen, mut leases) = (HashMap::new(), HashMap::new());
        let mut deleted = Vec::new();
        let mut all = latest.all(parts).await?;
        while let Some(rows) = all.next().await? {
            leases.extend(rows.leases.iter().map(|lease| (lease.id, lease.ttl)));
            for row in rows.keys {
                let name = name(&row.content.key);
                let newest = seen.entry(name).or_insert(row.at);
                *newest = row.at.max(*newest);
                if row.is_deletion {
                    deleted.push((name, row.at));
                }
            }
        }
        latest.kubernetes = all.kubernetes;
        for (name, at) in deleted {
            if seen.get(&name) == Some(&at) {
                seen.remove(&name);
            }
        }
        (latest.rows, latest.leases) = (seen, leases);
        Ok(latest)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Their values, in no order, those in one answer of one read. Reads the backup once more.
    pub(crate) async fn values<'a>(&'a self, parts: &'a PartReader) -> Result<Values<'a>> {
        let all = self.all(parts).await?;
        Ok(Values { latest: self, all })
    }

    async fn all<'a>(&'a self, parts: &'a PartReader) -> Result<All<'a>> {
        Ok(All {
            latest: self,
            parts,
            changes: self.reach.changes.iter(),
            bytes: parts.open(DB).await?,
            reader: Reader::Snapshot(Pages::default()),
            kubernetes: false,
        })
    }
}

/// Keys and values, piece by piece.
pub(crate) struct Values<'a> {
    latest: &'a Latest,
    all: All<'a>,
}

impl Values<'_> {
    /// The next of them. `None` once the backup ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<KeyValue>>> {
        let Some(rows) = self.all.next().await? else {
            return Ok(None);
        };
        let latest = &self.latest.rows;
        let last = rows.keys.into_iter();
        let last = last.filter(|row| latest.get(&name(&row.content.key)) == Some(&row.at));
        Ok(Some(last.map(|row| row.content).collect()))
    }
}

#[derive(Default)]
struct Rows {
    keys: Vec<Row>,
    leases: Vec<Lease>,
}

/// All rows that are wanted, of the snapshot and of the changes since, piece by piece.
struct All<'a> {
    latest: &'a Latest,
    parts: &'a PartReader,
    changes: std::slice::Iter<'a, (String, (i64, i64))>,
    bytes: ByteStream,
    reader: Reader,
    /// Whether there was a key of Kubernetes among them.
    kubernetes: bool,
}

/// Finds the rows in the bytes of a part: of a snapshot that was walked already, or of changes.
enum Reader {
    Snapshot(Pages),
    Changes(Lines),
}

impl All<'_> {
    /// `None` once the last part ended.
    async fn next(&mut self) -> Result<Option<Rows>> {
        loop {
            if let Some(chunk) = self.bytes.next().await {
                let mut rows = self.read(&chunk?)?;
                let (prefix, until) = (&self.latest.prefix, self.latest.reach.until);
                rows.keys.retain(|row| {
                    row.content.key.starts_with(prefix) && lines::main(&row.at) <= until
                });
                let is_kubernetes = |row: &Row| row.content.key.starts_with(b"/registry/");
                self.kubernetes |= rows.keys.iter().any(is_kubernetes);
                return Ok(Some(rows));
            }
            if let Reader::Changes(lines) = &self.reader {
                lines.finish()?;
            }
            let Some((part, revisions)) = self.changes.next() else {
                return Ok(None);
            };
            self.bytes = self.parts.open(part).await?;
            self.reader = Reader::Changes(Lines::new(*revisions));
        }
    }

    fn read(&mut self, chunk: &Bytes) -> Result<Rows> {
        match &mut self.reader {
            Reader::Snapshot(pages) => {
                let (mut rows, mut broken) = (Rows::default(), false);
                let leaves = &self.latest.leaves;
                pages.feed(chunk, |head, page, root| {
                    broken |= rows.add(head, page, head.id == root, leaves).is_none();
                })?;
                match broken {
                    false => Ok(rows),
                    true => Err(corrupt("a row cannot be read")),
                }
            }
            Reader::Changes(lines) => Ok(Rows {
                keys: lines.feed(chunk)?,
                leases: Vec::new(),
            }),
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
            // That of `--bump-revision` is of no key.
            if entry.value.is_empty() {
                continue;
            }
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
