//! CRC-32C, of pieces that come in another order than that in which they count.

use crc_fast::{CrcAlgorithm, Digest};

const CASTAGNOLI: CrcAlgorithm = CrcAlgorithm::Crc32Iscsi;

/// Castagnoli's polynomial, reflected: the highest bit stands for x^0.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// x^(8 * 2^n) for every n: what a checksum is multiplied by where 2^n bytes follow.
const FOLLOWED: [u32; 64] = {
    let mut powers = [1 << 23; 64];
    let mut n = 1;
    while n < 64 {
        powers[n] = product(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

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

    /// That of these bytes and `next` behind them. There is one for every row and page of a store:
    /// `crc_fast::checksum_combine` builds matrices each time, and takes thirty times as long.
    pub(crate) fn then(self, next: Self) -> Self {
        let (mut sum, mut left) = (self.sum, next.bytes);
        while left != 0 {
            sum = product(FOLLOWED[left.trailing_zeros() as usize], sum);
            left &= left - 1;
        }
        Self {
            sum: sum ^ next.sum,
            bytes: self.bytes + next.bytes,
        }
    }
}

/// Of two polynomials, modulo Castagnoli's (`multmodp` of zlib's `crc32.c`).
const fn product(a: u32, mut b: u32) -> u32 {
    let (mut sum, mut bit) = (0, 32);
    while bit > 0 {
        bit -= 1;
        if (a >> bit) & 1 == 1 {
            sum ^= b;
        }
        b = (b >> 1) ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    sum
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
        let long = vec![7_u8; 70_001];
        let whole = Crc::of([&text[..], &long[..]]);
        assert_eq!(Crc::of([&text[..]]).then(Crc::of([&long[..]])), whole);
    }
}
