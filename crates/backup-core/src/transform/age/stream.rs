//! The payload of an age file, sealed and opened by several threads.
//!
//! STREAM as <https://c2sp.org/age#payload> has it: chunks of 64 KiB under ChaCha20-Poly1305,
//! each with its number and whether it is the last as nonce. The header, its keys and its MAC are
//! the `age` crate's; so is the payload format, tested against it and against `age` itself.

use age_core::primitives::hkdf;
use zeroize::Zeroizing;

use super::{TAG, cipher::Cipher, corrupt};
use crate::Result;
use crate::pipeline::thread::read_full;
use crate::transform::Reader;
use crate::transform::frames::{self, Work};

pub(super) const CHUNK: usize = 64 * 1024;
/// How many chunks a thread takes at once.
const CHUNKS: usize = 8;

/// What the chunks are sealed with.
pub(super) struct PayloadKey(Zeroizing<[u8; 32]>);

impl PayloadKey {
    /// From the file key that the header holds, and the nonce after it.
    pub(super) fn new(file_key: &[u8; 16], nonce: &[u8]) -> Self {
        Self(Zeroizing::new(hkdf(nonce, b"payload", file_key)))
    }

    pub(super) fn seal(self, plain: Reader, threads: usize) -> Result<Reader> {
        let worker = || {
            let cipher = Cipher::new(&self.0)?;
            Ok(Box::new(
                move |piece: Piece, block: &mut Vec<u8>, sealed: &mut Vec<u8>| {
                    sealed.clear();
                    piece.chunks(block, CHUNK, |nonce, chunk| {
                        let tag = cipher.seal(nonce, chunk)?;
                        sealed.extend_from_slice(chunk);
                        sealed.extend_from_slice(&tag);
                        Ok(())
                    })
                },
            ) as Work<Piece>)
        };
        frames::map("age", threads, cutter(plain, CHUNK), worker)
    }

    pub(super) fn open(self, sealed: Reader, threads: usize) -> Result<Reader> {
        let worker = || {
            let cipher = Cipher::new(&self.0)?;
            Ok(Box::new(
                move |piece: Piece, block: &mut Vec<u8>, plain: &mut Vec<u8>| {
                    plain.clear();
                    piece.chunks(block, CHUNK + TAG, |nonce, chunk| {
                        let opened = cipher.open(nonce, chunk)?;
                        // Only an empty file ends with an empty chunk.
                        if opened.is_empty() && nonce[..11] != [0; 11] {
                            return Err(corrupt("ends with an empty chunk"));
                        }
                        plain.extend_from_slice(opened);
                        Ok(())
                    })
                },
            ) as Work<Piece>)
        };
        frames::map("unage", threads, cutter(sealed, CHUNK + TAG), worker)
    }
}

/// The most that a running stage holds.
pub(super) fn memory(threads: usize) -> usize {
    (frames::blocks(threads) + frames::results(threads)) * CHUNKS * (CHUNK + TAG)
}

/// Where a block lies.
struct Piece {
    first: u64,
    last: bool,
}

impl Piece {
    /// Calls `each` with the nonce of every chunk in `block`. An empty block has one empty chunk.
    fn chunks(
        &self,
        block: &mut [u8],
        size: usize,
        mut each: impl FnMut([u8; 12], &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let count = block.len().div_ceil(size).max(1);
        let mut rest = block;
        for n in 0..count {
            let (chunk, more) = rest.split_at_mut(size.min(rest.len()));
            let mut nonce = [0; 12];
            nonce[3..11].copy_from_slice(&(self.first + n as u64).to_be_bytes());
            nonce[11] = u8::from(self.last && n + 1 == count);
            each(nonce, chunk)?;
            rest = more;
        }
        Ok(())
    }
}

/// Cuts `input` into blocks of [`CHUNKS`] chunks of `size` bytes. Reads one byte further to know
/// which one is the last.
fn cutter(mut input: Reader, size: usize) -> impl FnMut(&mut Vec<u8>) -> Result<Option<Piece>> {
    let mut first = 0;
    let mut ended = false;
    let mut ahead: Option<u8> = None;
    move |block| {
        if ended {
            return Ok(None);
        }
        block.resize(CHUNKS * size, 0);
        let carried = match ahead.take() {
            Some(byte) => {
                block[0] = byte;
                1
            }
            None => 0,
        };
        let len = carried + read_full(&mut input, &mut block[carried..])?;
        let mut next = [0];
        if len == block.len() && read_full(&mut input, &mut next)? == 1 {
            ahead = Some(next[0]);
        }
        ended = ahead.is_none();
        block.truncate(len);
        let piece = Piece { first, last: ended };
        first += CHUNKS as u64;
        Ok(Some(piece))
    }
}
