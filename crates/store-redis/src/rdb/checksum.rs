use crc_fast::{CrcAlgorithm, Digest};

/// The CRC-64 over everything but the last eight bytes, which are the checksum itself.
///
/// Redis' own polynomial (Jones), reflected, from 0 (`crc64.c`); stored in little-endian.
#[derive(Clone)]
pub(crate) struct Checksum {
    digest: Digest,
    tail: [u8; SIZE],
    held: usize,
}

const SIZE: usize = 8;

impl Checksum {
    pub(crate) fn new() -> Self {
        Self {
            digest: Digest::new(CrcAlgorithm::Crc64Redis),
            tail: [0; SIZE],
            held: 0,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if bytes.len() >= SIZE {
            let (first, last) = bytes.split_at(bytes.len() - SIZE);
            self.digest.update(&self.tail[..self.held]);
            self.digest.update(first);
            self.tail.copy_from_slice(last);
            self.held = SIZE;
            return;
        }
        let leaves = (self.held + bytes.len()).saturating_sub(SIZE);
        self.digest.update(&self.tail[..leaves]);
        self.tail.copy_within(leaves..self.held, 0);
        self.held -= leaves;
        self.tail[self.held..self.held + bytes.len()].copy_from_slice(bytes);
        self.held += bytes.len();
    }

    /// What was computed, and what is written.
    pub(crate) fn compare(&self) -> (u64, u64) {
        (self.digest.finalize(), u64::from_le_bytes(self.tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-64/REDIS, however the bytes come.
    #[test]
    fn the_sum_is_that_of_redis_in_any_pieces() {
        let bytes = b"123456789\xca\xd9\xb8\xc4\x14\xd9\xc6\xe9";
        for size in 1..=bytes.len() {
            let mut sum = Checksum::new();
            bytes.chunks(size).for_each(|piece| sum.update(piece));
            assert_eq!(
                sum.compare(),
                (0xe9c6_d914_c4b8_d9ca, 0xe9c6_d914_c4b8_d9ca)
            );
        }
    }
}
