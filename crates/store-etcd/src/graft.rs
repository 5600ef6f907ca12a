//! Rows that are laid upon a snapshot: the same database, at a later revision.
//!
//! Rows are ordered by revision, so that what is new comes after everything that is there. Leaves are
//! made of it and appended to the file, then the branches of a new tree over the leaves that were there
//! and these. Then the first pages say where that is. What etcd needs besides, its indexes, it makes of
//! the rows.
//!
//! No branch has a single child: bbolt, when it deletes rows, takes that for a bug of its own and ends
//! the server (`bbolt/node.go`, `rebalance`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use backup_core::{Error, Result};
use prost::Message;

use crate::lines::{At, Row};
use crate::page::{self, Entry, HEAD, Head, Kind, Meta, corrupt};
use crate::walker::KEYS;

/// A page of the largest size there is, twice: where both metas are.
const BEGIN: usize = 2 << 16;
/// The key of a row is at most as long.
const KEY: usize = 18;

/// A file of a snapshot that gets more rows.
pub(crate) struct Graft {
    pages: Appended,
    meta: Meta,
    /// The page with the list of buckets.
    root: Vec<u8>,
    sequence: [u8; 8],
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    last: Option<At>,
    /// Pages below those that are not written yet, the leaves first.
    levels: Vec<Vec<(Vec<u8>, u64)>>,
}

/// Pages of a file, which becomes longer.
struct Appended {
    file: File,
    size: usize,
    next: u64,
}

impl Appended {
    fn read(&self, number: u64) -> Result<Vec<u8>> {
        let read = |len: usize| {
            let mut page = vec![0; len];
            let at = number.saturating_mul(self.size as u64);
            self.file.read_exact_at(&mut page, at).map(|()| page)
        };
        let pages = read(HEAD).map(|head| Head::of(&head).map_or(0, |head| head.overflow));
        let page = pages.and_then(|more| read((more as usize + 1) * self.size));
        page.map_err(|e| Error::io(format!("read page {number} of the snapshot"), e))
    }

    fn append(&mut self, page: impl FnOnce(u64, usize) -> Vec<u8>) -> Result<u64> {
        let (number, size) = (self.next, self.size);
        let bytes = page(number, size);
        self.write(number, &bytes)?;
        self.next += (bytes.len() / size) as u64;
        Ok(number)
    }

    fn write(&self, number: u64, page: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(page, number * self.size as u64);
        written.map_err(|e| Error::io("write to the snapshot", e))
    }
}

impl Graft {
    /// Opens a snapshot that was found whole. Its hash, at the end, is given up.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |e: io::Error| Error::io(format!("open {}", path.display()), e);
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        let mut begin = vec![0; BEGIN.min(file.metadata().map_err(failed)?.len() as usize)];
        file.read_exact_at(&mut begin, 0).map_err(failed)?;
        let meta = page::newest(&begin)?;
        let pages = Appended {
            file,
            size: meta.page_size as usize,
            next: meta.pages,
        };
        let mut graft = Self {
            root: pages.read(meta.root)?,
            pages,
            meta,
            sequence: [0; 8],
            rows: Vec::new(),
            bytes: 0,
            last: None,
            levels: vec![Vec::new()],
        };
        graft.find_rows()?;
        Ok(graft)
    }

    /// The tree with the rows that are there. Those that lie in the root are taken out of it.
    fn find_rows(&mut self) -> Result<()> {
        let broken = || corrupt("it has no bucket `key`");
        let root = std::mem::take(&mut self.root);
        let keys = entries(&root)?.into_iter().find(|entry| entry.key == KEYS);
        let (first, inline) = keys
            .and_then(|it| page::bucket(it.value))
            .ok_or_else(broken)?;
        self.sequence = keys
            .and_then(|it| it.value.get(8..16)?.try_into().ok())
            .ok_or_else(broken)?;
        if first == 0 {
            for entry in entries(inline)? {
                self.push(entry.key.to_vec(), entry.value.to_vec())?;
            }
        } else {
            self.take_leaves(first)?;
        }
        self.root = root;
        Ok(())
    }

    /// The leaves of the tree that is there. All of them are at one height.
    fn take_leaves(&mut self, root: u64) -> Result<()> {
        let (mut page, mut height) = (self.pages.read(root)?, 0);
        while let Some(head) = Head::of(&page).filter(|head| head.kind == Kind::Branch) {
            let child = page::children(&page, head.count).next().flatten();
            let (_, child) = child.ok_or_else(|| unreadable(root))?;
            page = self.pages.read(child)?;
            height += 1;
        }
        match entries(&page)?.first() {
            Some(first) => self.take_below(root, height, first.key.to_vec()),
            None => Ok(()),
        }
    }

    fn take_below(&mut self, number: u64, height: usize, first_key: Vec<u8>) -> Result<()> {
        if height == 0 {
            return self.put_below(0, first_key, number);
        }
        let page = self.pages.read(number)?;
        let count = Head::of(&page).map_or(0, |head| head.count);
        for child in page::children(&page, count) {
            let (key, child) = child.ok_or_else(|| unreadable(number))?;
            self.take_below(child, height - 1, key.to_vec())?;
        }
        Ok(())
    }

    /// One more row, newer than all others.
    pub(crate) fn add(&mut self, row: &Row) -> Result<()> {
        if self.last.is_some_and(|last| last >= row.at) {
            return Err(corrupt("its changes are not in order"));
        }
        self.last = Some(row.at);
        let mut key = row.at.to_vec();
        key.extend(row.is_deletion.then_some(b't'));
        self.push(key, row.content.encode_to_vec())
    }

    fn push(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        let bytes = HEAD + key.len() + value.len();
        if !self.rows.is_empty() && HEAD + self.bytes + bytes > self.pages.size {
            self.end_leaf()?;
        }
        self.bytes += bytes;
        self.rows.push((key, value));
        Ok(())
    }

    fn end_leaf(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let entries: Vec<_> = rows
            .iter()
            .map(|(key, value)| Entry {
                is_bucket: false,
                key,
                value,
            })
            .collect();
        let page = self
            .pages
            .append(|number, size| page::leaf(number, size, &entries))?;
        match entries.first() {
            Some(first) => self.put_below(0, first.key.to_vec(), page),
            None => Ok(()),
        }
    }

    fn put_below(&mut self, level: usize, first_key: Vec<u8>, page: u64) -> Result<()> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push((first_key, page));
        let children = self.levels[level].len();
        match HEAD + (children + 1) * (HEAD + KEY) > self.pages.size {
            // Two stay for the next: none of them is the only child of the last branch.
            true => self.end_branch(level, children - 2),
            false => Ok(()),
        }
    }

    /// A branch over the first `count` pages of a level.
    fn end_branch(&mut self, level: usize, count: usize) -> Result<()> {
        let children: Vec<_> = self.levels[level].drain(..count).collect();
        let Some((first_key, _)) = children.first().cloned() else {
            return Ok(());
        };
        let page = self
            .pages
            .append(|number, size| page::branch(number, size, &children))?;
        self.put_below(level + 1, first_key, page)
    }

    /// The root of the tree over all leaves. `None`: there are no rows.
    fn tree(&mut self) -> Result<Option<u64>> {
        if !self.rows.is_empty() {
            self.end_leaf()?;
        }
        for level in 0.. {
            let is_top = level + 1 == self.levels.len();
            match self.levels[level].as_slice() {
                [] if is_top => break,
                [(_, root)] if is_top => return Ok(Some(*root)),
                children => self.end_branch(level, children.len())?,
            }
        }
        Ok(None)
    }

    /// Makes it one database. It has no hash yet at its end.
    pub(crate) fn finish(mut self) -> Result<()> {
        let Some(tree) = self.tree()? else {
            return self.end();
        };
        let mut bucket = tree.to_le_bytes().to_vec();
        bucket.extend(self.sequence);
        let root = std::mem::take(&mut self.root);
        let mut buckets = entries(&root)?;
        for entry in &mut buckets {
            if entry.key == KEYS {
                entry.value = &bucket;
            }
        }
        self.meta.root = self
            .pages
            .append(|number, size| page::leaf(number, size, &buckets))?;
        self.meta.pages = self.pages.next;
        self.meta.txid += 1;
        let (number, meta) = self.meta.to_page();
        self.pages.write(number, &meta)?;
        self.end()
    }

    fn end(self) -> Result<()> {
        let len = self.pages.next * self.pages.size as u64;
        let cut = self.pages.file.set_len(len);
        cut.map_err(|e| Error::io("write to the snapshot", e))
    }
}

fn unreadable(page: u64) -> Error {
    corrupt(&format!("page {page} cannot be read"))
}

/// The entries of a leaf.
fn entries(page: &[u8]) -> Result<Vec<Entry<'_>>> {
    let head = Head::of(page).filter(|head| head.kind == Kind::Leaf);
    let head = head.ok_or_else(|| corrupt("a page is no leaf"))?;
    let entries: Option<_> = page::entries(page, head.count).collect();
    entries.ok_or_else(|| corrupt("a leaf cannot be read"))
}
