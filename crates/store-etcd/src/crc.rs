//! CRC-32C, of pieces that come in another order than that in which they count.

use crc_fast::{CrcAlgorithm, Digest, checksum_combine};

const CASTAGNOLI: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// A checksum, and of how many bytes it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crc {
    pub(crate) sum: u32,
    pub(crate) bytes: u64,
}

impl Crc {
    pub(crate) fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Digest::new(CASTAGNOLI);
        let mut bytes = 0;
        for piece in pieces {
            digest.update(piece);
            bytes += piece.len() as u64;
        }
        Self {
            sum: digest.finalize() as u32,
            bytes,
        }
    }

    /// That of these bytes and `next` behind them.
    pub(crate) fn then(self, next: Self) -> Self {
        let (first, second) = (u64::from(self.sum), u64::from(next.sum));
        Self {
            sum: checksum_combine(CASTAGNOLI, first, second, next.bytes) as u32,
            bytes: self.bytes + next.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_checksum_of_the_whole() {
        // The check value of CRC-32C in the catalogue of parametrised CRC algorithms.
        assert_eq!(Crc::of([&b"123456789"[..]]).sum, 0xE306_9283);
        let text = b"a snapshot of etcd";
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            let whole = Crc::of([&text[..]]);
            assert_eq!(Crc::of([a, b]), whole);
            assert_eq!(Crc::of([a]).then(Crc::of([b])), whole, "cut at {cut}");
        }
        assert_eq!(Crc::default(), Crc::of([]));
    }
}
