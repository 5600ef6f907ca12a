//! Compression with zstd, in frames that are worked on side by side.

use std::io::{BufReader, Read};
use std::ops::RangeInclusive;

use ::zstd::bulk::{Compressor, Decompressor};
use ::zstd::zstd_safe;

use super::frames::{self, Work};
use super::{Coding, Reader, Stage, StockCommand, Transform, guard};
use crate::pipeline::thread::read_full;
use crate::{Error, ErrorKind, Result};

/// Compresses with zstd.
///
/// The stream is a row of independent frames, each of at most [`frame`](Self::frame) plain bytes
/// and each announced by a skippable frame with its coded length, as `pzstd` does, so that both
/// `pzstd` and this stage decode them side by side. A last skippable frame holds the plain length
/// of all: `zstd` ignores it, this stage takes a stream without it for cut short. Every frame
/// has zstd's own checksum (XXH64, under 2 % of the time), so that who restores an unencrypted
/// part by hand sees damage without looking at `SHA256SUMS`.
///
/// Decodes any zstd stream. One that is not of this form goes through the streaming decoder, on
/// one thread, with a window of at most 128 MiB, as `zstd -d` does.
#[derive(Clone, Debug)]
pub struct Zstd {
    level: i32,
    frame: usize,
}

/// Announces a frame: <https://github.com/facebook/zstd/blob/dev/contrib/pzstd/README.md>.
const NEXT: u32 = 0x184D_2A50;
/// Says that this was all. Any other of zstd's sixteen magic numbers for what decoders skip.
const LAST: u32 = 0x184D_2A5E;
const NEXT_LEN: usize = 12;
const MAX_FRAME: usize = 8 * 1024 * 1024;
const MAX_WINDOW_LOG: u32 = 27;

impl Zstd {
    /// The levels of zstd that make sense in a backup.
    pub const LEVELS: RangeInclusive<i32> = -7..=22;

    /// A compressor; a level outside of [`LEVELS`](Self::LEVELS) becomes the nearest one. 3 is
    /// zstd's own default.
    pub fn level(level: i32) -> Self {
        Self {
            level: level.clamp(*Self::LEVELS.start(), *Self::LEVELS.end()),
            frame: 2 * 1024 * 1024,
        }
    }

    /// How many plain bytes a frame holds, 64 KiB to 8 MiB, 2 MiB by default. Larger ones
    /// compress a little better and take more memory.
    #[must_use]
    pub fn frame(mut self, bytes: usize) -> Self {
        self.frame = bytes.clamp(64 * 1024, MAX_FRAME);
        self
    }

    fn compressor(&self, verify: bool) -> Result<Work<Piece>> {
        let mut compressor = Compressor::new(self.level).map_err(broken)?;
        compressor.include_checksum(true).map_err(broken)?;
        let mut check = if verify {
            Some((Decompressor::new().map_err(broken)?, Vec::new()))
        } else {
            None
        };
        Ok(Box::new(move |piece, block, coded| {
            if let Piece::Last { total } = piece {
                coded.clear();
                coded.extend_from_slice(&LAST.to_le_bytes());
                coded.extend_from_slice(&8u32.to_le_bytes());
                coded.extend_from_slice(&total.to_le_bytes());
                return Ok(());
            }
            compress(&mut compressor, block, coded)?;
            if let Some((decompressor, plain)) = &mut check {
                verify_frame(decompressor, &coded[NEXT_LEN..], block, plain)?;
            }
            Ok(())
        }))
    }
}

/// Level 3.
impl Default for Zstd {
    fn default() -> Self {
        Self::level(3)
    }
}

enum Piece {
    Frame,
    Last { total: u64 },
}

impl Transform for Zstd {
    fn id(&self) -> &str {
        "zstd"
    }

    fn suffix(&self) -> &str {
        ".zst"
    }

    fn stage(&self) -> Stage {
        Stage::Compress
    }

    fn encode(&self, mut plain: Reader, coding: &Coding) -> Result<Reader> {
        let frame = self.frame;
        let mut total = 0u64;
        let mut ended = false;
        let feed = move |block: &mut Vec<u8>| {
            if ended {
                return Ok(None);
            }
            block.resize(frame, 0);
            let n = read_full(&mut plain, block)?;
            block.truncate(n);
            total += n as u64;
            ended = n == 0;
            Ok(Some(if ended {
                Piece::Last { total }
            } else {
                Piece::Frame
            }))
        };
        let verify = coding.verify();
        frames::map("zstd", coding.threads(), feed, || self.compressor(verify))
    }

    fn decode(&self, coded: Reader, coding: &Coding) -> Result<Reader> {
        let threads = coding.threads();
        Ok(guard::lazy(move || {
            let mut coded = guard::input(coded);
            let mut start = [0; NEXT_LEN + FRAME_HEADER];
            let n = read_full(&mut coded, &mut start)?;
            let start = &start[..n];
            let ours = is_ours(start);
            let coded = Box::new(std::io::Cursor::new(start.to_vec()).chain(coded));
            if ours {
                frames::map("unzstd", threads, cutter(coded), decompressor)
            } else {
                foreign(coded)
            }
        }))
    }

    fn undo(&self) -> StockCommand {
        StockCommand::new(["zstd", "-dc"])
    }

    fn memory(&self, threads: usize) -> usize {
        let coded = zstd_safe::compress_bound(self.frame) + NEXT_LEN;
        let check = self.frame;
        frames::blocks(threads) * self.frame
            + frames::results(threads) * coded
            + threads.max(1) * (check + self.workspace())
    }
}

fn compress(compressor: &mut Compressor, block: &[u8], coded: &mut Vec<u8>) -> Result<()> {
    coded.clear();
    coded.reserve(NEXT_LEN + zstd_safe::compress_bound(block.len()));
    coded.resize(NEXT_LEN, 0);
    let mut frame = std::io::Cursor::new(&mut *coded);
    frame.set_position(NEXT_LEN as u64);
    let len = compressor
        .compress_to_buffer(block, &mut frame)
        .map_err(broken)?;
    let len = u32::try_from(len).map_err(|e| Error::new(ErrorKind::Other, e.to_string()))?;
    coded[..4].copy_from_slice(&NEXT.to_le_bytes());
    coded[4..8].copy_from_slice(&4u32.to_le_bytes());
    coded[8..NEXT_LEN].copy_from_slice(&len.to_le_bytes());
    Ok(())
}

fn verify_frame(
    decompressor: &mut Decompressor,
    frame: &[u8],
    block: &[u8],
    plain: &mut Vec<u8>,
) -> Result<()> {
    plain.clear();
    plain.reserve(block.len());
    match decompressor.decompress_to_buffer(frame, plain) {
        Ok(_) if plain == block => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            "what zstd compressed does not decompress to the same bytes: this machine cannot be trusted",
        )),
    }
}

/// The longest header of a zstd frame.
const FRAME_HEADER: usize = 18;

/// Whether a stream that begins with `start` was written by [`Zstd`]: it is empty but for its
/// last frame, or announces a frame that says its plain length. `pzstd` does not say it.
fn is_ours(start: &[u8]) -> bool {
    let word = |at: usize| {
        start
            .get(at..at + 4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    match (word(0), word(4)) {
        (Some(LAST), Some(8)) => true,
        (Some(NEXT), Some(4)) => matches!(
            zstd_safe::get_frame_content_size(&start[NEXT_LEN.min(start.len())..]),
            Ok(Some(_))
        ),
        _ => false,
    }
}

/// Reads announced frames up to the last one, and checks that they end where it says.
fn cutter(mut coded: Reader) -> impl FnMut(&mut Vec<u8>) -> Result<Option<usize>> {
    let mut total = 0u64;
    move |block| {
        let mut head = [0; 8];
        fill(&mut coded, &mut head)?;
        let (magic, len) = head.split_at(4);
        match (le32(magic), le32(len)) {
            (NEXT, 4) => {
                let mut len = [0; 4];
                fill(&mut coded, &mut len)?;
                let len = le32(&len) as usize;
                if len > zstd_safe::compress_bound(MAX_FRAME) {
                    return Err(corrupt(format!(
                        "announces a frame of {len} bytes, more than any of ours has"
                    )));
                }
                block.resize(len, 0);
                fill(&mut coded, block)?;
                let plain = match zstd_safe::get_frame_content_size(block) {
                    Ok(Some(plain)) if plain <= MAX_FRAME as u64 => plain,
                    _ => return Err(corrupt("has a frame of unknown or too large plain length")),
                };
                total += plain;
                Ok(Some(plain as usize))
            }
            (LAST, 8) => {
                let mut said = [0; 8];
                fill(&mut coded, &mut said)?;
                let said = u64::from_le_bytes(said);
                if said != total {
                    return Err(corrupt(format!("ends after {total} of {said} plain bytes")));
                }
                if read_full(&mut coded, &mut [0])? != 0 {
                    return Err(corrupt("goes on after its end"));
                }
                Ok(None)
            }
            _ => Err(corrupt("has no frame where one should begin")),
        }
    }
}

fn decompressor() -> Result<Work<usize>> {
    let mut decompressor = Decompressor::new().map_err(broken)?;
    Ok(Box::new(move |len, frame, plain| {
        if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err(corrupt("has a frame of another length than announced"));
        }
        plain.clear();
        plain.reserve(len);
        match decompressor.decompress_to_buffer(frame, plain) {
            Ok(n) if n == len => Ok(()),
            Ok(n) => Err(corrupt(format!(
                "has a frame of {n} plain bytes that says {len}"
            ))),
            Err(e) => Err(corrupt("has a damaged frame").with_source(e)),
        }
    }))
}

/// Any other zstd stream.
fn foreign(coded: Reader) -> Result<Reader> {
    let mut coded = BufReader::with_capacity(zstd_safe::DCtx::in_size(), coded);
    if std::io::BufRead::fill_buf(&mut coded)?.is_empty() {
        return Err(corrupt("is empty"));
    }
    let mut decoder = ::zstd::stream::read::Decoder::with_buffer(coded).map_err(broken)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(broken)?;
    Ok(Box::new(Foreign(decoder)))
}

struct Foreign<R: std::io::BufRead>(::zstd::stream::read::Decoder<'static, R>);

impl<R: std::io::BufRead> Read for Foreign<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0
            .read(buffer)
            .map_err(|e| guard::damage("the zstd stream", e).into())
    }
}

/// Reads exactly `buffer`; the end of the input before that is `Corrupt`.
fn fill(coded: &mut Reader, buffer: &mut [u8]) -> Result<()> {
    if read_full(coded, buffer)? < buffer.len() {
        return Err(corrupt("is cut short"));
    }
    Ok(())
}

fn le32(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the zstd stream {what}"))
}

fn broken(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Other, "zstd refuses to work").with_source(error)
}

impl Zstd {
    /// The most that a compressor and a decompressor of frames of this size hold.
    fn workspace(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for frame in [256usize << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20] {
            let data = vec![7u8; frame];
            for level in [
                -7, -1, 1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 15, 16, 17, 18, 19, 20, 22,
            ] {
                let mut c = ::zstd::bulk::Compressor::new(level).unwrap();
                let out = c.compress(&data).unwrap();
                let mut d = ::zstd::bulk::Decompressor::new().unwrap();
                d.decompress(&out, frame).unwrap();
                print!(
                    "{level}:{:.2} ",
                    c.context_mut().sizeof() as f64 / (1 << 20) as f64
                );
            }
            println!(" frame {frame}");
        }
    }
}
