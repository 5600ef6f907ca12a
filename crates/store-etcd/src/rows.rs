//! Which rows a server counts when it says what it has.
//!
//! `HashKV` at a revision leaves out, of the rows up to the last compaction, those that were
//! superseded since (`mvcc/hash.go`, `mvcc/kvstore.go`). Which these are takes a line for each row: a
//! hash of its key, when it was written, and its checksum.

use std::hash::{BuildHasher, RandomState};

use prost::encoding::decode_varint;

use crate::crc::Crc;

/// How many rows are remembered: 24 bytes each, and 2 more at the end. With more, `HashKV` is
/// known only of a store that was never compacted.
const MOST: usize = 1 << 19;

/// The key of a row and nothing behind it.
const BUMP: u32 = 17;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    name: u64,
    /// Twice the revision, and one more for a deletion.
    at: u64,
    sum: u32,
    bytes: u32,
}

impl Row {
    fn revision(&self) -> i64 {
        (self.at >> 1) as i64
    }

    fn is_deletion(&self) -> bool {
        self.at & 1 == 1
    }

    /// The row with which `--bump-revision` raises the revision: it has no value, and counts as one of
    /// a key without a name, which nobody can read or delete.
    fn is_bump(&self) -> bool {
        self.bytes <= BUMP
    }
}

/// The rows of a file, in the order of its pages.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    names: RandomState,
    rows: Vec<Row>,
    /// There were more.
    too_many: bool,
}

impl Rows {
    /// Where those of the next leaf begin.
    pub(crate) fn next(&self) -> u32 {
        self.rows.len() as u32
    }

    /// `None` for a row that is not one of a key.
    pub(crate) fn add(&mut self, row: &[u8], value: &[u8], at: i64, deleted: bool) -> Option<()> {
        if self.rows.len() == MOST {
            self.too_many = true;
            return Some(());
        }
        let crc = Crc::of([row, value]);
        self.rows.push(Row {
            name: self.names.hash_one(key(value)?),
            at: (u64::try_from(at).ok()? << 1) | u64::from(deleted),
            sum: crc.sum,
            bytes: u32::try_from(crc.bytes).ok()?,
        });
        Some(())
    }

    pub(crate) fn forget(&mut self, from: u32) {
        self.rows.truncate(from as usize);
    }

    /// The rows of leaves that begin at these places and have so many; `None` where they were too
    /// many to remember.
    pub(crate) fn of<'a>(
        &'a self,
        leaves: impl Iterator<Item = (u32, u16)> + Clone + 'a,
    ) -> Option<impl Iterator<Item = &'a Row> + Clone> {
        let rows = leaves.flat_map(|(first, count)| {
            let first = first as usize;
            self.rows.iter().skip(first).take(count.into())
        });
        (!self.too_many).then_some(rows)
    }
}

/// The key in the value of a row, a `mvccpb.KeyValue`: its first field, and never empty. Where there is
/// no value it is.
fn key(value: &[u8]) -> Option<&[u8]> {
    if value.is_empty() {
        return Some(value);
    }
    let mut rest = value.strip_prefix(&[0x0a])?;
    let len = decode_varint(&mut rest).ok()?;
    rest.get(..usize::try_from(len).ok()?)
}

/// What there is to say of all rows of the keys, in their order.
pub(crate) struct Counted {
    /// Keys that were not deleted.
    pub(crate) keys: u64,
    /// What `HashKV` sums up, the name of the bucket aside. `None` where a deletion lies at the very
    /// revision of the compaction: versions differ in whether they keep it.
    pub(crate) crc: Option<Crc>,
}

pub(crate) fn count<'a>(
    rows: impl Iterator<Item = &'a Row> + Clone,
    compacted: Option<i64>,
) -> Counted {
    let newest = newest(rows.clone());
    let rows = rows.zip(&newest);
    let kept = |(row, newest): &(&Row, &bool)| **newest && !row.is_deletion();
    let all = rows.clone().filter(kept).count();
    let bumps = rows.clone().filter(|it| kept(it) && it.0.is_bump()).count();
    let is_old = |row: &Row| compacted.is_some_and(|compacted| row.revision() <= compacted);
    let is_doubtful = |row: &Row| row.is_deletion() && Some(row.revision()) == compacted;
    let counts = |it: &(&Row, &bool)| all == 0 || !is_old(it.0) || kept(it);
    let crc = rows
        .clone()
        .filter(counts)
        .fold(Crc::default(), |sum, (row, _)| {
            sum.then(Crc {
                sum: row.sum,
                bytes: row.bytes.into(),
            })
        });
    let is_doubted = rows.clone().any(|(row, _)| is_doubtful(row));
    Counted {
        keys: (all - bumps) as u64,
        crc: (!is_doubted).then_some(crc),
    }
}

/// Which rows are the last ones of their keys. A share of the names at a time: all of them would take as
/// much as the rows.
fn newest<'a>(rows: impl Iterator<Item = &'a Row> + Clone) -> Vec<bool> {
    const SHARES: u64 = 16;
    let mut newest = vec![false; rows.clone().count()];
    let mut by_name: Vec<(u64, usize)> = Vec::new();
    for share in 0..SHARES {
        let names = rows.clone().map(|row| row.name).zip(0..);
        by_name.clear();
        by_name.extend(names.filter(|(name, _)| name % SHARES == share));
        by_name.sort_unstable();
        for (at, (name, row)) in by_name.iter().enumerate() {
            let next = by_name.get(at + 1);
            newest[*row] = next.is_none_or(|(next, _)| next != name);
        }
    }
    newest
}
