//! Writing tar headers: GNU's format, which every tar reads.

use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::attributes::Attributes;

/// What everything in a tar is a multiple of.
pub(crate) const BLOCK: usize = 512;

/// Headers and padding on their way out.
#[derive(Default)]
pub(crate) struct Ready {
    bytes: Vec<u8>,
    taken: usize,
}

impl Ready {
    /// Names and link targets that are too long for a header go before it, in entries of their
    /// own.
    pub(crate) fn header(
        &mut self,
        path: &[u8],
        kind: EntryType,
        attributes: Attributes,
        size: u64,
        link: &[u8],
    ) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(attributes.mode);
        header.set_uid(attributes.uid.into());
        header.set_gid(attributes.gid.into());
        header.set_size(size);
        header.set_mtime(attributes.mtime.cast_unsigned());
        if let Some(gnu) = header.as_gnu_mut().filter(|_| attributes.mtime < 0) {
            // Before 1970: two's complement over the whole field.
            gnu.mtime[..4].fill(0xff);
        }
        self.long(link, b'K');
        self.long(path, b'L');
        self.push(header, path, link);
    }

    /// What fills the last block of `size` bytes.
    pub(crate) fn pad(&mut self, size: u64) {
        let rest = (size % BLOCK as u64) as usize;
        if rest > 0 {
            self.bytes.resize(self.bytes.len() + BLOCK - rest, 0);
        }
    }

    /// The end of an archive is said: two empty blocks.
    pub(crate) fn end(&mut self) {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
    }

    fn long(&mut self, text: &[u8], kind: u8) {
        let mut header = Header::new_gnu();
        let size = text.len() as u64 + 1;
        if text.len() <= header.as_old().name.len() {
            return;
        }
        header.set_entry_type(EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        self.push(header, b"././@LongLink", b"");
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        self.pad(size);
    }

    fn push(&mut self, mut header: Header, path: &[u8], link: &[u8]) {
        let old = header.as_old_mut();
        fill(&mut old.name, path);
        fill(&mut old.linkname, link);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
    }
}

impl Read for Ready {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (&self.bytes[self.taken..]).read(buffer)?;
        self.taken += n;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        }
        Ok(n)
    }
}

fn fill(field: &mut [u8; 100], text: &[u8]) {
    let n = text.len().min(field.len());
    field[..n].copy_from_slice(&text[..n]);
}
