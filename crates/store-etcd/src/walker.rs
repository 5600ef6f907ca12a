//! A database as it streams by: what it is worth is known at its end, and nothing of it is kept.
//!
//! A bbolt file is a tree whose pages lie in any order, beside pages that no longer belong to it and
//! hold whatever they held. So of each leaf only a line is remembered, its checksum and its last
//! revision, and of each branch the numbers of the pages below it. At the end the tree is walked over
//! these lines: the checksum of the whole is put together from those of its leaves. That takes 32 bytes
//! for each page of the file, 16 MiB for 2 GiB, and what `rows` holds.

use backup_core::Result;

use crate::crc::Crc;
use crate::page::{self, Entry, Head, Kind, Pages, corrupt};
use crate::rows::{self, Rows};

/// A tree of pages is never as high.
const HEIGHT: usize = 64;

/// The buckets that a restore reads.
pub(crate) const KEYS: &[u8] = b"key";
pub(crate) const LEASES: &[u8] = b"lease";
const FINISHED: &[u8] = b"finishedCompactRev";
const SCHEDULED: &[u8] = b"scheduledCompactRev";

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The last change that is in it.
    pub(crate) revision: i64,
    /// Changes that are kept, of all keys together.
    pub(crate) entries: u64,
    /// Keys, if they are not too many to count.
    pub(crate) keys: Option<u64>,
    /// Up to where older changes were given up.
    pub(crate) compacted: Option<i64>,
    /// What `etcdutl snapshot status` calls the hash.
    pub(crate) hash: u32,
    /// What a server answers to `HashKV` at this revision; `None` where that depends on its version or
    /// on a compaction that was going on, or on more rows than are remembered.
    pub(crate) hash_kv: Option<u32>,
    pub(crate) leaves: Leaves,
}

/// The pages with the rows of two buckets, in the order of their numbers. None: the rows lie in the
/// page of the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaves {
    pub(crate) keys: Vec<u32>,
    pub(crate) leases: Vec<u32>,
}

/// A leaf, in a line.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    page: u32,
    sum: u32,
    bytes: u32,
    entries: u16,
    /// Where its rows begin, if they are of keys.
    rows: u32,
    last: i64,
}

#[derive(Debug)]
struct Branch {
    page: u32,
    /// Where its children begin, and how many there are.
    first: usize,
    count: usize,
}

/// Takes the bytes of a database in order.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    pages: Pages,
    lines: Lines,
}

impl Walker {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        let lines = &mut self.lines;
        self.pages
            .feed(bytes, |head, page, root| lines.note(head, page, root))
    }

    /// All bytes were fed.
    pub(crate) fn finish(self) -> Result<Summary> {
        let mut lines = self.lines;
        let pages = self.pages;
        let meta = pages.finish(|head, page, root| lines.note(head, page, root))?;
        Tree::new(&lines, meta.pages).walk()
    }
}

/// What is remembered of the pages.
#[derive(Debug, Default)]
struct Lines {
    root: Option<Vec<u8>>,
    leaves: Vec<Leaf>,
    branches: Vec<Branch>,
    children: Vec<u32>,
    rows: Rows,
    /// Pages with a row that says how far compaction is, and what it says.
    compactions: Vec<(u32, bool, i64)>,
}

impl Lines {
    fn note(&mut self, head: Head, page: &[u8], root: u64) {
        if head.id == root {
            self.root = Some(page.to_vec());
        }
        let Ok(number) = u32::try_from(head.id) else {
            return;
        };
        match head.kind {
            Kind::Leaf => self.note_leaf(number, head.count, page),
            Kind::Branch => {
                let first = self.children.len();
                for child in page::children(page, head.count) {
                    match child.and_then(|(_, child)| u32::try_from(child).ok()) {
                        Some(child) => self.children.push(child),
                        None => return self.children.truncate(first),
                    }
                }
                let count = self.children.len() - first;
                self.branches.push(Branch {
                    page: number,
                    first,
                    count,
                });
            }
            Kind::Other => {}
        }
    }

    fn note_leaf(&mut self, page: u32, count: u16, bytes: &[u8]) {
        let rows = self.rows.next();
        let leaf = Content::of(bytes, count, &mut self.rows);
        let Some((bytes, leaf)) = leaf.and_then(|it| Some((u32::try_from(it.crc.bytes).ok()?, it)))
        else {
            return self.rows.forget(rows);
        };
        let compactions = leaf.compactions.into_iter();
        self.compactions
            .extend(compactions.map(|(finished, revision)| (page, finished, revision)));
        self.leaves.push(Leaf {
            page,
            sum: leaf.crc.sum,
            bytes,
            entries: count,
            rows,
            last: leaf.last,
        });
    }
}

/// What there is to say of the rows of one leaf.
struct Content {
    crc: Crc,
    last: i64,
    compactions: Vec<(bool, i64)>,
}

impl Content {
    /// `None` for one that is not whole, whose keys are not in order, or that holds buckets.
    fn of(page: &[u8], count: u16, rows: &mut Rows) -> Option<Self> {
        let mut pieces = Vec::with_capacity(2 * usize::from(count));
        let (mut last, mut compactions) = (0, Vec::new());
        let mut before: Option<&[u8]> = None;
        for entry in page::entries(page, count) {
            let Entry {
                is_bucket,
                key,
                value,
            } = entry?;
            if is_bucket || before.is_some_and(|before| before >= key) {
                return None;
            }
            before = Some(key);
            pieces.extend([key, value]);
            if let Some((main, is_deletion)) = revision(key) {
                last = main;
                rows.add(key, value, main, is_deletion)?;
            }
            if (key == FINISHED || key == SCHEDULED)
                && let Some((main, _)) = revision(value)
            {
                compactions.push((key == FINISHED, main));
            }
        }
        Some(Self {
            crc: Crc::of(pieces),
            last,
            compactions,
        })
    }
}

/// `main_sub`, big-endian, and a `t` for a deletion (`etcd/server/storage/mvcc/revision.go`).
fn revision(key: &[u8]) -> Option<(i64, bool)> {
    let is_deletion = match key.len() {
        17 => false,
        18 if key[17] == b't' => true,
        _ => return None,
    };
    let main = i64::from_be_bytes(key.get(..8)?.try_into().ok()?);
    (key[8] == b'_').then_some((main, is_deletion))
}

/// The lines of a file, and which were walked over.
struct Tree<'a> {
    file: &'a Lines,
    seen: Vec<bool>,
    entries: u64,
    last: i64,
    /// Leaves of the bucket that is walked, in the order of their rows.
    leaves: Vec<&'a Leaf>,
}

impl<'a> Tree<'a> {
    fn new(file: &'a Lines, pages: u64) -> Self {
        Self {
            file,
            seen: vec![false; pages as usize],
            entries: 0,
            last: 0,
            leaves: Vec::new(),
        }
    }

    fn walk(mut self) -> Result<Summary> {
        let root = self.file.root.as_deref();
        let root = root.ok_or_else(|| corrupt("its root is missing"))?;
        let head = Head::of(root).filter(|head| head.kind == Kind::Leaf);
        let count = head.map(|head| head.count);
        let count = count.ok_or_else(|| corrupt("its root is no list of buckets"))?;
        let (mut whole, mut keys) = (Crc::default(), None);
        let (mut finished, mut scheduled) = (None, None);
        let mut found = Leaves::default();
        for entry in page::entries(root, count) {
            let entry = entry.filter(|entry| entry.is_bucket);
            let entry = entry.ok_or_else(|| corrupt("its root has something else than buckets"))?;
            let broken = || corrupt(&format!("bucket `{}`", entry.key.escape_ascii()));
            (self.entries, self.last) = (0, 0);
            self.leaves.clear();
            let is_meta = entry.key == b"meta";
            let (first, inline) = page::bucket(entry.value).ok_or_else(broken)?;
            // Of the keys, where they are so few that they lie in the root.
            let mut inlined = Rows::default();
            let (crc, compactions) = match first {
                0 => {
                    let count = Head::of(inline).ok_or_else(broken)?.count;
                    let content = Content::of(inline, count, &mut inlined).ok_or_else(broken)?;
                    (self.entries, self.last) = (count.into(), content.last);
                    (content.crc, content.compactions)
                }
                page => {
                    let crc = self.below(page, 0)?;
                    let pages = self.pages();
                    let mine = self.file.compactions.iter().filter(|_| is_meta);
                    let mine = mine.filter(|(page, ..)| pages.binary_search(page).is_ok());
                    (crc, mine.map(|(_, done, main)| (*done, *main)).collect())
                }
            };
            let name = Crc::of([entry.key]);
            whole = whole.then(name).then(crc);
            if entry.key == KEYS {
                let (inlined, leaves) = match first {
                    0 => (Some(inlined), vec![(0, u16::MAX)]),
                    _ => (
                        None,
                        self.leaves.iter().map(|it| (it.rows, it.entries)).collect(),
                    ),
                };
                keys = Some((name, crc, inlined, leaves, self.entries, self.last));
                found.keys = self.pages();
            }
            if entry.key == LEASES {
                found.leases = self.pages();
            }
            if is_meta {
                for (done, main) in compactions {
                    *(if done { &mut finished } else { &mut scheduled }) = Some(main);
                }
            }
        }
        let keys = keys.ok_or_else(|| corrupt("it has no bucket `key`"))?;
        let (name, all, inlined, leaves, entries, last) = keys;
        // A server that starts from it counts on from there (`mvcc/kvstore.go`, `restore`).
        let revision = last.max(finished.unwrap_or(1)).max(scheduled.unwrap_or(1));
        let rows = inlined.as_ref().unwrap_or(&self.file.rows);
        let rows = rows.of(leaves.iter().copied());
        let counted = rows.map(|rows| rows::count(rows, finished));
        let hashed = match (finished, &counted) {
            _ if finished != scheduled => None,
            (None, _) => Some(all),
            (Some(_), counted) => counted.as_ref().and_then(|counted| counted.crc),
        };
        Ok(Summary {
            revision,
            entries,
            keys: counted.map(|counted| counted.keys),
            compacted: finished.max(scheduled),
            hash: whole.sum,
            hash_kv: hashed.map(|rows| name.then(rows).sum),
            leaves: found,
        })
    }

    /// The pages of the leaves, in the order of their numbers.
    fn pages(&self) -> Vec<u32> {
        let mut pages: Vec<_> = self.leaves.iter().map(|leaf| leaf.page).collect();
        pages.sort_unstable();
        pages
    }

    /// The rows at and below a page, in order.
    fn below(&mut self, page: u64, height: usize) -> Result<Crc> {
        let damaged = |what: &str| corrupt(&format!("page {page} {what}"));
        let seen = usize::try_from(page).ok();
        let seen = seen.and_then(|page| self.seen.get_mut(page));
        let seen = seen.ok_or_else(|| damaged("is beyond its end"))?;
        if std::mem::replace(seen, true) || height > HEIGHT {
            return Err(damaged("is in the tree twice"));
        }
        let number = page as u32;
        let file = self.file;
        if let Ok(at) = file.leaves.binary_search_by_key(&number, |leaf| leaf.page) {
            let leaf = &file.leaves[at];
            if leaf.last != 0 && leaf.last < self.last {
                return Err(damaged("is older than the one before it"));
            }
            self.last = self.last.max(leaf.last);
            self.entries += u64::from(leaf.entries);
            self.leaves.push(leaf);
            return Ok(Crc {
                sum: leaf.sum,
                bytes: leaf.bytes.into(),
            });
        }
        let at = file
            .branches
            .binary_search_by_key(&number, |branch| branch.page);
        let branch = at.map_err(|_| damaged("is neither a whole leaf nor a branch"))?;
        let branch = &file.branches[branch];
        let mut rows = Crc::default();
        for child in &file.children[branch.first..branch.first + branch.count] {
            rows = rows.then(self.below((*child).into(), height + 1)?);
        }
        Ok(rows)
    }
}
