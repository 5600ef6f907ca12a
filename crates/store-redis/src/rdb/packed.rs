//! Texts that hold many elements, taken apart while they stream.

/// Receives elements, each in pieces.
pub(crate) trait Elements {
    /// Bytes of an element.
    fn bytes(&mut self, bytes: &[u8]);
    /// The element is over.
    fn ends(&mut self);
}

/// How elements lie in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// The text is one.
    Plain,
    /// `listpack.c`: a header of six bytes, entries, 0xFF.
    Listpack,
    /// `intset.c`: the size of an integer, how many there are, and they, in little-endian.
    Intset,
}

/// Takes one text apart. Integers come out as decimal text, as Redis shows them. What it does not
/// understand it lets be: two texts that differ still come out different.
pub(crate) struct Unpacker {
    packing: Packing,
    at: At,
    /// The bytes of a number, or of a header.
    held: Vec<u8>,
}

#[derive(Clone, Copy)]
enum At {
    /// So many bytes of a header.
    Header(usize),
    Entry,
    /// An entry that begins with this byte needs so many in all to be understood.
    Head(usize),
    /// So many bytes of an element, and behind it so many that say how long it was.
    Text(usize, usize),
    /// So many bytes that mean nothing here.
    Skip(usize),
    End,
}

impl Unpacker {
    pub(crate) fn new(packing: Packing) -> Self {
        let at = match packing {
            Packing::Plain => At::End,
            Packing::Listpack => At::Header(6),
            Packing::Intset => At::Header(8),
        };
        Self {
            packing,
            at,
            held: Vec::new(),
        }
    }

    pub(crate) fn feed(&mut self, mut input: &[u8], out: &mut impl Elements) {
        if self.packing == Packing::Plain {
            return out.bytes(input);
        }
        while !input.is_empty() {
            match self.at {
                At::Header(size) => {
                    if self.hold(size, &mut input) {
                        self.at = match self.packing {
                            Packing::Intset => At::Head(usize::from(self.held[0]).clamp(1, 8)),
                            _ => At::Entry,
                        };
                        self.held.clear();
                    }
                }
                At::Head(size) if self.packing == Packing::Intset => {
                    if self.hold(size, &mut input) {
                        self.integer(out);
                    }
                }
                At::Entry => {
                    let first = input[0];
                    self.at = At::Head(match first {
                        0xf0 => 5,
                        0xf1 => 3,
                        0xf2 => 4,
                        0xf3 => 5,
                        0xf4 => 9,
                        0xc0..=0xef => 2,
                        _ => 1,
                    });
                }
                At::Head(size) => {
                    if self.hold(size, &mut input) {
                        self.entry(out);
                    }
                }
                At::Text(left, behind) => {
                    let (taken, rest) = input.split_at(left.min(input.len()));
                    out.bytes(taken);
                    input = rest;
                    self.at = At::Text(left - taken.len(), behind);
                    if taken.len() == left {
                        out.ends();
                        self.at = At::Skip(behind);
                    }
                }
                At::Skip(left) => {
                    let n = left.min(input.len());
                    input = &input[n..];
                    self.at = if n == left {
                        At::Entry
                    } else {
                        At::Skip(left - n)
                    };
                }
                At::End => return out.bytes(input),
            }
        }
    }

    /// The text is over.
    pub(crate) fn end(self, out: &mut impl Elements) {
        if self.packing == Packing::Plain {
            out.ends();
        }
    }

    fn hold(&mut self, size: usize, input: &mut &[u8]) -> bool {
        let n = (size - self.held.len()).min(input.len());
        self.held.extend_from_slice(&input[..n]);
        *input = &input[n..];
        self.held.len() == size
    }

    /// An entry of a listpack whose beginning is held (`lpGetWithSize`).
    fn entry(&mut self, out: &mut impl Elements) {
        let head = std::mem::take(&mut self.held);
        let size = head.len();
        let byte = |at: usize| head.get(at).copied().map_or(0, usize::from);
        let (first, second) = (byte(0), byte(1));
        let text = match first {
            0x80..=0xbf => first & 0x3f,
            0xe0..=0xef => (first & 0x0f) << 8 | second,
            0xf0 => byte(1) | byte(2) << 8 | byte(3) << 16 | byte(4) << 24,
            _ => {
                let number = match first {
                    0..=0x7f => first as i64,
                    // 13 bits with a sign.
                    0xc0..=0xdf => ((((first & 0x1f) << 8 | second) as i64) << 51) >> 51,
                    0xf1..=0xf4 => little_endian(&head[1..]),
                    _ => return self.at = At::End,
                };
                out.bytes(number.to_string().as_bytes());
                out.ends();
                self.at = At::Skip(behind(size));
                return;
            }
        };
        self.at = At::Text(text, behind(size + text));
        if text == 0 {
            out.ends();
            self.at = At::Skip(behind(size));
        }
    }

    fn integer(&mut self, out: &mut impl Elements) {
        let number = little_endian(&self.held);
        self.held.clear();
        out.bytes(number.to_string().as_bytes());
        out.ends();
    }
}

/// An integer of up to eight bytes with a sign.
fn little_endian(bytes: &[u8]) -> i64 {
    let number = bytes
        .iter()
        .rev()
        .fold(0_u64, |sum, b| sum << 8 | u64::from(*b));
    let unused = 64 - 8 * bytes.len().clamp(1, 8) as u32;
    ((number << unused) as i64) >> unused
}

/// How many bytes behind an entry of `size` bytes say how long it is (`lpEncodeBacklenBytes`).
fn behind(size: usize) -> usize {
    match size {
        0..=127 => 1,
        128..=16_382 => 2,
        16_383..=2_097_150 => 3,
        2_097_151..=268_435_454 => 4,
        _ => 5,
    }
}

/// Undoes LZF while it streams (`lzf_d.c`): literal runs, and copies of what was up to 8 KiB back.
#[derive(Default)]
pub(crate) struct Lzf {
    /// What came out last.
    window: Vec<u8>,
    literals: usize,
    /// The bytes of a copy that were read.
    copy: Vec<u8>,
}

const BACK: usize = 8192;

impl Lzf {
    /// `None`: it is no LZF.
    pub(crate) fn feed(&mut self, input: &[u8], mut out: impl FnMut(&[u8])) -> Option<()> {
        let mut input = input;
        while let Some((first, rest)) = input.split_first() {
            if self.literals > 0 {
                let (taken, rest) = input.split_at(self.literals.min(input.len()));
                self.literals -= taken.len();
                self.window.extend_from_slice(taken);
                out(taken);
                input = rest;
            } else {
                input = rest;
                match (self.copy.is_empty(), first) {
                    (true, 0..=31) => self.literals = usize::from(*first) + 1,
                    _ => self.copy(*first, &mut out)?,
                }
            }
            if self.window.len() > 8 * BACK {
                self.window.drain(..self.window.len() - BACK);
            }
        }
        Some(())
    }

    /// Two bytes, or three where the first says seven.
    fn copy(&mut self, byte: u8, out: &mut impl FnMut(&[u8])) -> Option<()> {
        self.copy.push(byte);
        let first = usize::from(self.copy[0]);
        let size = if first >> 5 == 7 { 3 } else { 2 };
        if self.copy.len() < size {
            return Some(());
        }
        let longer = if size == 3 {
            usize::from(self.copy[1])
        } else {
            0
        };
        let (length, back) = (
            (first >> 5) + longer + 2,
            (first & 0x1f) << 8 | usize::from(byte),
        );
        self.copy.clear();
        let end = self.window.len();
        let from = end.checked_sub(back + 1)?;
        for at in from..from + length {
            let byte = self.window[at];
            self.window.push(byte);
        }
        out(&self.window[end..]);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct List(Vec<Vec<u8>>, Vec<u8>);

    impl Elements for List {
        fn bytes(&mut self, bytes: &[u8]) {
            self.1.extend_from_slice(bytes);
        }

        fn ends(&mut self) {
            self.0.push(std::mem::take(&mut self.1));
        }
    }

    fn unpack(packing: Packing, bytes: &[u8], size: usize) -> Vec<String> {
        let (mut unpacker, mut list) = (Unpacker::new(packing), List::default());
        bytes
            .chunks(size)
            .for_each(|piece| unpacker.feed(piece, &mut list));
        unpacker.end(&mut list);
        assert!(list.1.is_empty(), "nothing is left over");
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        list.0.iter().map(text).collect()
    }

    #[test]
    fn a_listpack_comes_apart_in_any_pieces() {
        let mut bytes = vec![0; 6];
        bytes.extend([0x05, 1, 0xc1, 0x2c, 2, 0xdf, 0xff, 2]);
        bytes.extend([0xf1, 0xd2, 0x04, 3, 0xf2, 0, 0, 0x80, 4]);
        bytes.extend([
            0xf3, 0xff, 0xff, 0xff, 0xff, 5, 0xf4, 1, 0, 0, 0, 0, 0, 0, 0, 9,
        ]);
        bytes.extend([0x83, b'a', b'b', b'c', 4, 0x80, 1]);
        bytes.extend([&[0xe1, 0x00][..], &[b'x'; 256], &[2, 0]].concat());
        bytes.extend([&[0xf0, 0x00, 0x10, 0, 0][..], &[b'y'; 4096], &[2, 0]].concat());
        bytes.push(0xff);
        let (x, y) = ("x".repeat(256), "y".repeat(4096));
        let expected = [
            "5", "300", "-1", "1234", "-8388608", "-1", "1", "abc", "", &x, &y,
        ];
        for size in [1, 2, 3, 7, 100, bytes.len()] {
            assert_eq!(unpack(Packing::Listpack, &bytes, size), expected, "{size}");
        }
    }

    #[test]
    fn an_intset_comes_apart_in_any_pieces() {
        let bytes = [2, 0, 0, 0, 3, 0, 0, 0, 0xfe, 0xff, 1, 0, 0x2c, 1];
        for size in 1..=bytes.len() {
            assert_eq!(unpack(Packing::Intset, &bytes, size), ["-2", "1", "300"]);
        }
    }

    #[test]
    fn lzf_is_undone_in_any_pieces() {
        // "ab" and thirteen bytes from two back; then from one back a long copy.
        let bytes = [1, b'a', b'b', 0xe0, 4, 1, 0xe0, 0xff, 0];
        let expected = ["ababababababababa"[..15].to_owned(), "a".repeat(264)].concat();
        for size in 1..=bytes.len() {
            let (mut lzf, mut all) = (Lzf::default(), Vec::new());
            for piece in bytes.chunks(size) {
                lzf.feed(piece, |out| all.extend_from_slice(out)).unwrap();
            }
            assert_eq!(String::from_utf8(all).unwrap(), expected);
        }
        assert!(
            Lzf::default().feed(&[0x20, 0], |_| ()).is_none(),
            "before its beginning"
        );
    }
}
