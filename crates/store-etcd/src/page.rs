//! Pages of a bbolt file, as etcd writes them, and how they come one after the other.
//!
//! Every page begins with 16 bytes: its number (u64), flags (u16), how many elements it has (u16), how
//! many further pages it goes on for (u32), all little-endian (`bbolt/internal/common/page.go`).

use backup_core::{Error, ErrorKind, Result};
use bytes::{Buf, BytesMut};

/// The size of the head of a page, and of one element of a leaf or a branch.
pub(crate) const HEAD: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;

/// More pages than one leaf may have: as many bytes as this.
const LARGEST: usize = 256 << 20;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// What stands in the head of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Branch,
    Leaf,
    Other,
}

impl Head {
    pub(crate) fn of(page: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(page, 0)?,
            kind: match u16_at(page, 8)? {
                BRANCH => Kind::Branch,
                LEAF => Kind::Leaf,
                _ => Kind::Other,
            },
            count: u16_at(page, 10)?,
            overflow: u32_at(page, 12)?,
        })
    }
}

/// Where a transaction begins: one of the first two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_size: u32,
    pub(crate) root: u64,
    /// How many pages the file has.
    pub(crate) pages: u64,
    pub(crate) txid: u64,
}

impl Meta {
    /// `None` where the checksum says that it is not whole: FNV-1a over what stands before it.
    pub(crate) fn of(page: &[u8]) -> Option<Self> {
        let body = page.get(HEAD..HEAD + 64)?;
        let whole = u16_at(page, 8)? & META != 0
            && u32_at(body, 0)? == MAGIC
            && u32_at(body, 4)? == VERSION
            && u64_at(body, 56)? == fnv(&body[..56]);
        whole.then_some(Self {
            page_size: u32_at(body, 8)?,
            root: u64_at(body, 16)?,
            pages: u64_at(body, 40)?,
            txid: u64_at(body, 48)?,
        })
    }
}

impl Meta {
    /// The page that says so, and its number. The list of free pages is none of it: bbolt finds out which
    /// are free when it opens the file, as it does with every file of etcd (`NoFreelistSync`).
    pub(crate) fn to_page(self) -> (u64, Vec<u8>) {
        const NO_FREELIST: u64 = u64::MAX;
        let number = self.txid % 2;
        let mut body = Vec::with_capacity(64);
        for field in [MAGIC, VERSION, self.page_size, 0] {
            body.extend(field.to_le_bytes());
        }
        for field in [self.root, 0, NO_FREELIST, self.pages, self.txid] {
            body.extend(field.to_le_bytes());
        }
        body.extend(fnv(&body).to_le_bytes());
        let mut page = head(number, META, 0, 0);
        page.extend(body);
        page.resize(self.page_size as usize, 0);
        (number, page)
    }
}

fn head(number: u64, flags: u16, count: usize, overflow: usize) -> Vec<u8> {
    let mut head = number.to_le_bytes().to_vec();
    head.extend(flags.to_le_bytes());
    head.extend((count as u16).to_le_bytes());
    head.extend((overflow as u32).to_le_bytes());
    head
}

/// A page with these elements, each of them what stands in its fixed part beside where its bytes are,
/// and its bytes. It goes on for as many pages as it needs.
fn page(
    number: u64,
    flags: u16,
    size: usize,
    elements: &[(impl Fn(u32) -> [u8; HEAD], Vec<u8>)],
) -> Vec<u8> {
    let bytes: usize = elements.iter().map(|(_, bytes)| HEAD + bytes.len()).sum();
    let pages = (HEAD + bytes).div_ceil(size);
    let mut page = head(number, flags, elements.len(), pages - 1);
    // Where the bytes of an element are is counted from its fixed part.
    let mut pos = elements.len() * HEAD;
    for (fixed, bytes) in elements {
        page.extend(fixed(pos as u32));
        pos = pos + bytes.len() - HEAD;
    }
    page.extend(elements.iter().flat_map(|(_, bytes)| bytes));
    page.resize(pages * size, 0);
    page
}

/// A leaf with these entries.
pub(crate) fn leaf(number: u64, size: usize, entries: &[Entry<'_>]) -> Vec<u8> {
    let elements: Vec<_> = entries
        .iter()
        .map(|entry| {
            let flags = u32::from(entry.is_bucket);
            let (key, value) = (entry.key.len() as u32, entry.value.len() as u32);
            let fixed = move |pos: u32| numbers([flags, pos, key, value]);
            (fixed, [entry.key, entry.value].concat())
        })
        .collect();
    page(number, LEAF, size, &elements)
}

/// A branch with these pages below it, each with the first key in it.
pub(crate) fn branch(number: u64, size: usize, children: &[(Vec<u8>, u64)]) -> Vec<u8> {
    let elements: Vec<_> = children
        .iter()
        .map(|(key, child)| {
            let (len, child) = (key.len() as u32, *child);
            let fixed = move |pos: u32| numbers([pos, len, child as u32, (child >> 32) as u32]);
            (fixed, key.clone())
        })
        .collect();
    page(number, BRANCH, size, &elements)
}

fn numbers(numbers: [u32; 4]) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    for (bytes, number) in bytes.chunks_exact_mut(4).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// One key of a leaf and what belongs to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) is_bucket: bool,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// The elements of a leaf, which may be one that lies in a value. `None` stands for one that points
/// outside.
pub(crate) fn entries(page: &[u8], count: u16) -> impl Iterator<Item = Option<Entry<'_>>> {
    (0..usize::from(count)).map(move |i| {
        let at = HEAD + i * HEAD;
        let element = page.get(at..)?;
        let (flags, pos) = (u32_at(element, 0)?, u32_at(element, 4)? as usize);
        let (key, value) = (u32_at(element, 8)? as usize, u32_at(element, 12)? as usize);
        let key_end = pos.checked_add(key)?;
        Some(Entry {
            is_bucket: flags & 1 != 0,
            key: element.get(pos..key_end)?,
            value: element.get(key_end..key_end.checked_add(value)?)?,
        })
    })
}

/// The pages below a branch, in the order of their keys, each with the key that it begins with or behind.
/// `None` stands for one whose key is outside.
pub(crate) fn children(page: &[u8], count: u16) -> impl Iterator<Item = Option<(&[u8], u64)>> {
    (0..usize::from(count)).map(move |i| {
        let element = page.get(HEAD + i * HEAD..)?;
        let (pos, len) = (u32_at(element, 0)? as usize, u32_at(element, 4)? as usize);
        let key = element.get(pos..pos.checked_add(len)?)?;
        Some((key, u64_at(element, 8)?))
    })
}

/// The page that a bucket begins with, or, where that is none, the page in its value.
pub(crate) fn bucket(value: &[u8]) -> Option<(u64, &[u8])> {
    Some((u64_at(value, 0)?, value.get(16..)?))
}

/// The pages of a file that streams by.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    buffer: BytesMut,
    /// The number of the page with which the buffer begins.
    next: u64,
    meta: Option<Meta>,
}

impl Pages {
    /// Gives each page that is complete now to `each`, with what it goes on in, and the number of the
    /// root. The tree may have given up a page long ago: then it holds whatever it held.
    pub(crate) fn feed(&mut self, bytes: &[u8], each: impl FnMut(Head, &[u8], u64)) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.work(false, each)
    }

    /// All bytes were fed.
    pub(crate) fn finish(mut self, each: impl FnMut(Head, &[u8], u64)) -> Result<Meta> {
        self.work(true, each)?;
        let meta = self.meta.ok_or_else(|| corrupt("it has no first page"))?;
        if !self.buffer.is_empty() || self.next != meta.pages {
            let message = format!("it ends after {} of {} pages", self.next, meta.pages);
            return Err(corrupt(&message));
        }
        Ok(meta)
    }

    fn work(&mut self, last: bool, mut each: impl FnMut(Head, &[u8], u64)) -> Result<()> {
        if self.meta.is_none() {
            // The second page is as good; a snapshot has the same in both, one transaction apart.
            if self.buffer.len() < 8192 && !last {
                return Ok(());
            }
            self.meta = Some(newest(&self.buffer)?);
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
                each(head, rest.get(..bytes).unwrap_or(&rest), meta.root);
            }
            // One page and not `pages`: what an old head claims may be somebody else's by now.
            rest.advance(size);
            self.next += 1;
        }
        self.buffer = rest;
        Ok(())
    }
}

/// The newer of the two metas in the first bytes of a file.
pub(crate) fn newest(bytes: &[u8]) -> Result<Meta> {
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

pub(crate) fn corrupt(what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the etcd snapshot is damaged: {what}"),
    )
}

fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
