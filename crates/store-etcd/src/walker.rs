//! A database as it streams by: what it is worth is known at its end, and nothing of it is kept.
//!
//! A bbolt file is a tree whose pages lie in any order, beside pages that no longer belong to it and
//! hold whatever they held. So of each leaf only a line is remembered, its checksum and its last
//! revision, and of each branch the numbers of the pages below it. At the end the tree is walked over
//! these lines: the checksum of the whole is put together from those of its leaves. That takes 24 bytes
//! for each page of the file, 12 MiB for 2 GiB.

use backup_core::{Error, ErrorKind, Result};
use bytes::{Buf, BytesMut};

use crate::crc::Crc;
use crate::page::{self, Entry, Head, Kind, Meta};

/// More pages than one leaf may have: as many bytes as this.
const LARGEST: usize = 256 << 20;
/// How many deletions are remembered. With more, a hash is not compared.
const DELETIONS: usize = 100_000;
/// A tree of pages is never as high.
const HEIGHT: usize = 64;

const KEYS: &[u8] = b"key";
const FINISHED: &[u8] = b"finishedCompactRev";
const SCHEDULED: &[u8] = b"scheduledCompactRev";

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The last change that is in it.
    pub(crate) revision: i64,
    /// Changes that are kept, of all keys together.
    pub(crate) entries: u64,
    /// Up to where older changes were given up.
    pub(crate) compacted: Option<i64>,
    /// What `etcdutl snapshot status` calls the hash.
    pub(crate) hash: u32,
    /// What a server answers to `HashKV` at this revision; `None` where that depends on its version or
    /// on a compaction that was going on.
    pub(crate) hash_kv: Option<u32>,
}

/// A leaf, in a line.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    page: u32,
    sum: u32,
    bytes: u32,
    entries: u16,
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
    buffer: BytesMut,
    /// The number of the page with which the buffer begins.
    next: u64,
    meta: Option<Meta>,
    root: Option<Vec<u8>>,
    leaves: Vec<Leaf>,
    branches: Vec<Branch>,
    children: Vec<u32>,
    deletions: Vec<i64>,
    /// Pages with a row that says how far compaction is, and what it says.
    compactions: Vec<(u32, bool, i64)>,
}

impl Walker {
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.work(false)
    }

    /// All bytes were fed.
    pub(crate) fn finish(mut self) -> Result<Summary> {
        self.work(true)?;
        let meta = self.meta.ok_or_else(|| corrupt("it has no first page"))?;
        if !self.buffer.is_empty() || self.next != meta.pages {
            let message = format!("it ends after {} of {} pages", self.next, meta.pages);
            return Err(corrupt(&message));
        }
        Tree::new(&self).walk()
    }

    fn work(&mut self, last: bool) -> Result<()> {
        if self.meta.is_none() {
            // The second page is as good; a snapshot has the same in both, one transaction apart.
            if self.buffer.len() < 8192 && !last {
                return Ok(());
            }
            self.meta = Some(meta(&self.buffer)?);
        }
        let Some(meta) = self.meta else { return Ok(()) };
        let size = meta.page_size as usize;
        let mut rest = std::mem::take(&mut self.buffer);
        while rest.len() >= size {
            let head = Head::of(&rest).filter(|head| head.id == self.next);
            let pages = head.map_or(1, |head| u64::from(head.overflow) + 1);
            let bytes = pages as usize * size;
            // What points beyond the file or is larger than any leaf belongs to the tree no more.
            let is_possible = self.next + pages <= meta.pages && bytes <= LARGEST;
            if let Some(head) = head.filter(|_| is_possible) {
                if rest.len() < bytes && !last {
                    break;
                }
                self.note(head, rest.get(..bytes).unwrap_or(&rest), meta.root);
            }
            // One page and not `pages`: what an old head claims may be somebody else's by now.
            rest.advance(size);
            self.next += 1;
        }
        self.buffer = rest;
        Ok(())
    }

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
                    match child.and_then(|child| u32::try_from(child).ok()) {
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
        let Some(leaf) = Content::of(bytes, count) else {
            return;
        };
        let compactions = leaf.compactions.into_iter();
        self.compactions
            .extend(compactions.map(|(finished, revision)| (page, finished, revision)));
        let room = DELETIONS.saturating_sub(self.deletions.len()) + 1;
        self.deletions.extend(leaf.deletions.iter().take(room));
        let Ok(bytes) = u32::try_from(leaf.crc.bytes) else {
            return;
        };
        self.leaves.push(Leaf {
            page,
            sum: leaf.crc.sum,
            bytes,
            entries: count,
            last: leaf.last,
        });
    }
}

/// What there is to say of the rows of one leaf.
struct Content {
    crc: Crc,
    last: i64,
    deletions: Vec<i64>,
    compactions: Vec<(bool, i64)>,
}

impl Content {
    /// `None` for one that is not whole, whose keys are not in order, or that holds buckets.
    fn of(page: &[u8], count: u16) -> Option<Self> {
        let mut pieces = Vec::with_capacity(2 * usize::from(count));
        let (mut last, mut deletions, mut compactions) = (0, Vec::new(), Vec::new());
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
                if is_deletion {
                    deletions.push(main);
                }
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
            deletions,
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

fn meta(bytes: &[u8]) -> Result<Meta> {
    let first = Meta::of(bytes);
    // The size of a page is in the page itself: the second is looked for at all that there are.
    let second = (9..17).find_map(|power| Meta::of(bytes.get(1 << power..)?));
    let newest = first.into_iter().chain(second).max_by_key(|meta| meta.txid);
    let meta = newest.ok_or_else(|| corrupt("neither of its first pages is whole"))?;
    match meta.page_size.is_power_of_two() && (512..=65536).contains(&meta.page_size) {
        true => Ok(meta),
        false => Err(corrupt("its pages have no possible size")),
    }
}

/// The lines of a file, and which were walked over.
struct Tree<'a> {
    file: &'a Walker,
    seen: Vec<bool>,
    entries: u64,
    last: i64,
    pages: Vec<u32>,
}

impl<'a> Tree<'a> {
    fn new(file: &'a Walker) -> Self {
        Self {
            file,
            seen: vec![false; file.next as usize],
            entries: 0,
            last: 0,
            pages: Vec::new(),
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
        // Of the keys, where they are so few that they lie in the root.
        let mut inlined = Vec::new();
        for entry in page::entries(root, count) {
            let entry = entry.filter(|entry| entry.is_bucket);
            let entry = entry.ok_or_else(|| corrupt("its root has something else than buckets"))?;
            let broken = || corrupt(&format!("bucket `{}`", entry.key.escape_ascii()));
            (self.entries, self.last) = (0, 0);
            self.pages.clear();
            let (first, inline) = page::bucket(entry.value).ok_or_else(broken)?;
            let (rows, compactions) = match first {
                0 => {
                    let head = Head::of(inline).ok_or_else(broken)?;
                    let content = Content::of(inline, head.count).ok_or_else(broken)?;
                    (self.entries, self.last) = (head.count.into(), content.last);
                    if entry.key == KEYS {
                        inlined = content.deletions;
                    }
                    (content.crc, content.compactions)
                }
                page => {
                    let rows = self.below(page, 0)?;
                    let mine = self.file.compactions.iter();
                    let mine = mine.filter(|(page, ..)| self.pages.contains(page));
                    (rows, mine.map(|(_, done, main)| (*done, *main)).collect())
                }
            };
            let name = Crc::of([entry.key]);
            whole = whole.then(name).then(rows);
            if entry.key == KEYS {
                keys = Some((name.then(rows), self.entries, self.last));
            }
            if entry.key == b"meta" {
                for (done, main) in compactions {
                    *(if done { &mut finished } else { &mut scheduled }) = Some(main);
                }
            }
        }
        let (hash, entries, last) = keys.ok_or_else(|| corrupt("it has no bucket `key`"))?;
        // A server that starts from it counts on from there (`mvcc/kvstore.go`, `restore`).
        let revision = last.max(finished.unwrap_or(1)).max(scheduled.unwrap_or(1));
        // Versions differ in whether they keep a deletion at the revision of a compaction.
        let deletions = &self.file.deletions;
        let is_certain = finished == scheduled
            && finished.is_none_or(|main| {
                deletions.len() <= DELETIONS
                    && !deletions.contains(&main)
                    && !inlined.contains(&main)
            });
        Ok(Summary {
            revision,
            entries,
            compacted: finished,
            hash: whole.sum,
            hash_kv: is_certain.then_some(hash.sum),
        })
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
            if self.pages.len() < HEIGHT {
                self.pages.push(number);
            }
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

fn corrupt(what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the etcd snapshot is damaged: {what}"),
    )
}
