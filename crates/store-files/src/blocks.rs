//! Reading tar strictly: what is not exactly right is refused.
//!
//! Formats: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar
//! manual, "Basic Tar Format" (`L` and `K` entries, base-256 numbers).

use backup_core::{Error, ErrorKind, Result, StreamReader};
use bytes::{Buf, Bytes};
use tar::{EntryType, Header};

use crate::attributes::Attributes;
use crate::counts::show;
use crate::headers::BLOCK;

/// The most bytes of a name, or of all extended fields of one entry. The kernel takes 4,096.
const LONGEST: u64 = 64 * 1024;

/// One entry, whose bytes are still to be read.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) attributes: Attributes,
    pub(crate) size: u64,
}

/// A tar stream.
pub(crate) struct Blocks<'a> {
    data: &'a mut StreamReader,
    chunk: Bytes,
}

/// What the entries before the proper one say about it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
}

impl<'a> Blocks<'a> {
    pub(crate) fn new(data: &'a mut StreamReader) -> Self {
        Self {
            data,
            chunk: Bytes::new(),
        }
    }

    /// The next entry; `None` after the end mark, once the stream has ended too.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            let block = self.block()?;
            if block.iter().all(|byte| *byte == 0) {
                self.end()?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            check(header, &block)?;
            let size = number(header.size(), "size")?;
            match header.entry_type() {
                EntryType::GNULongName => extended.path = Some(self.long(size)?),
                EntryType::GNULongLink => extended.link = Some(self.long(size)?),
                EntryType::XHeader => self.fields(size, &mut extended)?,
                kind => return extended.finish(header, kind, size).map(Some),
            }
        }
    }

    /// At most `limit` of the bytes that come next. The stream may not end here.
    pub(crate) fn some(&mut self, limit: u64) -> Result<Bytes> {
        while self.chunk.is_empty() {
            self.chunk = self
                .data
                .next_chunk()?
                .ok_or_else(|| corrupt("it ends too early"))?;
        }
        let n = usize::try_from(limit).map_or(self.chunk.len(), |n| n.min(self.chunk.len()));
        Ok(self.chunk.split_to(n))
    }

    /// What fills the last block of `size` bytes.
    pub(crate) fn padding(&mut self, size: u64) -> Result<()> {
        let mut left = size.wrapping_neg() % BLOCK as u64;
        while left > 0 {
            left -= self.some(left)?.len() as u64;
        }
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let piece = self.some((BLOCK - filled) as u64)?;
            block[filled..filled + piece.len()].copy_from_slice(&piece);
            filled += piece.len();
        }
        Ok(block)
    }

    /// After an empty block comes a second one, then nothing but more of them.
    fn end(&mut self) -> Result<()> {
        let mut rest = self.block()?.iter().all(|byte| *byte == 0);
        loop {
            rest = rest && self.chunk.iter().all(|byte| *byte == 0);
            if !rest {
                return Err(corrupt("there are bytes after its end"));
            }
            self.chunk.advance(self.chunk.len());
            match self.data.next_chunk()? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(()),
            }
        }
    }

    fn small(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > LONGEST {
            return Err(corrupt(&format!("a name of {size} bytes is too long")));
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let piece = self.some(size - bytes.len() as u64)?;
            bytes.extend_from_slice(&piece);
        }
        self.padding(size)?;
        Ok(bytes)
    }

    /// A name with a NUL after it.
    fn long(&mut self, size: u64) -> Result<Vec<u8>> {
        let mut name = self.small(size)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    /// Lines `length name=value`.
    fn fields(&mut self, size: u64, extended: &mut Extended) -> Result<()> {
        let bytes = self.small(size)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let space = rest.iter().position(|c| *c == b' ').ok_or_else(bad_field)?;
            let length: usize = text(&rest[..space])?.parse().map_err(|_| bad_field())?;
            if length <= space + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(bad_field());
            }
            let (name, value) = split(&rest[space + 1..length - 1])?;
            extended.set(name, value)?;
            rest = &rest[length..];
        }
        Ok(())
    }
}

impl Extended {
    fn set(&mut self, name: &str, value: &[u8]) -> Result<()> {
        let integer = || text(value)?.parse().map_err(|_| bad_field());
        match name {
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(integer()?),
            "uid" => self.uid = Some(small(integer()?, "owner")?),
            "gid" => self.gid = Some(small(integer()?, "group")?),
            "mtime" => {
                let whole = text(value)?.split('.').next().unwrap_or_default();
                self.mtime = Some(whole.parse().map_err(|_| bad_field())?);
            }
            "atime" | "ctime" | "uname" | "gname" | "comment" => {}
            // Whatever it says would be lost.
            name => return Err(refused(&format!("it uses the extended field {name:?}"))),
        }
        Ok(())
    }

    fn finish(self, header: &Header, kind: EntryType, size: u64) -> Result<Entry> {
        // Readers that do not agree where an entry ends see different archives.
        if let Some(said) = self.size.filter(|said| *said != size) {
            return Err(refused(&format!(
                "an entry has two sizes, {size} and {said}"
            )));
        }
        let path = self
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self
            .link
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let link = link.unwrap_or_default();
        if path.contains(&0) || link.contains(&0) {
            return Err(refused(&format!(
                "the name {:?} has a NUL in it",
                show(&path)
            )));
        }
        let owner = |own: Option<u32>, field, what| match own {
            Some(number) => Ok(number),
            None => small(number(field, what)?, what),
        };
        let attributes = Attributes {
            mode: number(header.mode(), "mode")? & 0o7777,
            uid: owner(self.uid, header.uid(), "owner")?,
            gid: owner(self.gid, header.gid(), "group")?,
            // Two's complement: times before 1970 are negative.
            mtime: match self.mtime {
                Some(seconds) => seconds,
                None => number(header.mtime(), "time")?.cast_signed(),
            },
        };
        let sized = matches!(kind, EntryType::Regular);
        if !sized && size > 0 {
            return Err(refused(&format!(
                "{} has bytes where it cannot have any",
                show(&path)
            )));
        }
        Ok(Entry {
            path,
            link,
            kind,
            attributes,
            size,
        })
    }
}

/// The right checksum and magic, and no bytes behind the end of a name.
fn check(header: &Header, block: &[u8; BLOCK]) -> Result<()> {
    const SUM: std::ops::Range<usize> = 148..156;
    let sum = |range: &[u8]| range.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    let sum = sum(block) - sum(&block[SUM]) + 8 * u32::from(b' ');
    if number(header.cksum(), "checksum")? != sum {
        return Err(corrupt("the checksum of a header is wrong"));
    }
    if header.as_gnu().is_none() && header.as_ustar().is_none() {
        return Err(corrupt("a header is neither GNU nor POSIX"));
    }
    for field in [&block[0..100], &block[157..257]] {
        let end = field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(field.len());
        if field[end..].iter().any(|byte| *byte != 0) {
            return Err(refused(&format!(
                "the name {:?} has a NUL in it",
                show(&field[..end])
            )));
        }
    }
    Ok(())
}

fn number<T>(value: std::io::Result<T>, what: &str) -> Result<T> {
    value.map_err(|e| corrupt(&format!("the {what} in a header is no number")).with_source(e))
}

fn small(value: u64, what: &str) -> Result<u32> {
    u32::try_from(value).map_err(|_| corrupt(&format!("the {what} {value} is too large")))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| bad_field())
}

fn split(field: &[u8]) -> Result<(&str, &[u8])> {
    let equals = field
        .iter()
        .position(|c| *c == b'=')
        .ok_or_else(bad_field)?;
    Ok((text(&field[..equals])?, &field[equals + 1..]))
}

fn bad_field() -> Error {
    corrupt("an extended header is malformed")
}

fn corrupt(why: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("this archive is damaged: {why}"),
    )
}

pub(crate) fn refused(why: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("this archive is not to be trusted: {why}"),
    )
}
