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
    pub(super) level: i32,
    pub(super) frame: usize,
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

    /// How many plain bytes a frame holds, 64 KiB to 8 MiB, 2 MiB by default. Rows
    /// compress as well in small frames as in one; files that resemble each other do not: a tree
    /// of source code takes 9 % more room at 2 MiB, 3 % at 4 MiB, for twice the memory.
    #[must_use]
    pub fn frame(mut self, bytes: usize) -> Self {
        self.frame = bytes.clamp(64 * 1024, MAX_FRAME);
        self
    }

    /// The most that a compressor and a decompressor of frames hold, as measured: the tables of
    /// the higher levels grow with the frame.
    fn workspace(&self) -> usize {
        let compressor = match self.level {
            -7..=3 => 5 << 18,
            4..=6 => 3 << 20,
            _ => (16 * self.frame.next_power_of_two()).max(1 << 20) + (5 << 18),
        };
        compressor + (1 << 18)
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

/// Whether a stream that begins with `start` was written by [`Zstd`], perhaps not to its end: it
/// is empty but for its last frame, or announces a frame and that does not go without its plain
/// length, as those of `pzstd` do.
fn is_ours(start: &[u8]) -> bool {
    let word = |at: usize| {
        start
            .get(at..at + 4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    };
    match (word(0), word(4)) {
        (Some(LAST), Some(8)) => true,
        (Some(NEXT), Some(4)) => {
            let frame = start.get(NEXT_LEN..).unwrap_or_default();
            !matches!(zstd_safe::get_frame_content_size(frame), Ok(None))
        }
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
                block.reserve_exact(len.saturating_sub(block.len()));
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

#[cfg(test)]
mod tests {
    use ::zstd::zstd_safe::DCtx;

    use super::*;
    use crate::transform::tests::{decode, encode, sample};

    const SMALL: Zstd = Zstd {
        level: 3,
        frame: 100,
    };

    fn skippable(magic: u32, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u32;
        [&magic.to_le_bytes(), &len.to_le_bytes(), payload].concat()
    }

    fn announced(frame: &[u8]) -> Vec<u8> {
        let mut bytes = skippable(NEXT, &(frame.len() as u32).to_le_bytes());
        bytes.extend_from_slice(frame);
        bytes
    }

    fn refusal(coded: &[u8]) -> String {
        let error = decode(&Zstd::default(), coded).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
        error.to_string()
    }

    #[test]
    fn no_cut_and_no_flipped_bit_passes_for_the_data() {
        let plain = sample(450);
        let coded = encode(&SMALL, &plain);
        for at in 0..coded.len() {
            refusal(&coded[..at]);
            for bit in 0..8 {
                let mut flipped = coded.clone();
                flipped[at] ^= 1 << bit;
                match decode(&SMALL, &flipped) {
                    // Another of the magic numbers for what is skipped: harmless.
                    Ok(back) => assert!(back == plain, "bit {bit} of byte {at}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}"),
                }
            }
        }
    }

    #[test]
    fn a_missing_or_repeated_frame_and_bytes_after_the_end_are_seen() {
        let coded = encode(&SMALL, &sample(300));
        let first = NEXT_LEN + le32(&coded[8..12]) as usize;
        assert!(refusal(&coded[first..]).contains("ends after 200 of 300"));
        let twice = [&coded[..first], &coded[..]].concat();
        assert!(refusal(&twice).contains("ends after 400 of 300"));
        let longer = [&coded[..], b"x"].concat();
        assert!(refusal(&longer).contains("goes on after its end"));
        let joined = [&coded[..], &coded[..]].concat();
        assert!(refusal(&joined).contains("goes on after its end"));
    }

    #[test]
    fn frames_that_lie_about_their_size_are_refused_unopened() {
        let last = skippable(LAST, &10u64.to_le_bytes());
        let huge = ::zstd::bulk::compress(&vec![0; MAX_FRAME + 1], 1).unwrap();
        assert!(refusal(&[announced(&huge), last.clone()].concat()).contains("too large"));

        let frame = ::zstd::bulk::compress(&[7; 10], 1).unwrap();
        let mut long = skippable(NEXT, &u32::MAX.to_le_bytes());
        long.extend_from_slice(&frame);
        assert!(refusal(&long).contains("announces a frame of 4294967295 bytes"));

        let two = announced(&[&frame[..], &frame[..]].concat());
        assert!(refusal(&[two, last.clone()].concat()).contains("another length than announced"));

        // The content size of a frame this short is the byte after magic and descriptor.
        let mut less = frame.clone();
        assert_eq!(less[5], 10);
        less[5] = 9;
        assert!(refusal(&[announced(&less), last].concat()).contains("damaged frame"));
    }

    #[test]
    fn any_other_zstd_stream_decodes_and_its_end_is_checked() {
        let plain = sample(300_000);
        let one = ::zstd::stream::encode_all(&plain[..], 3).unwrap();
        let stage = Zstd::default();
        assert!(decode(&stage, &one).unwrap() == plain);
        let two = [&one[..], &one[..]].concat();
        assert_eq!(decode(&stage, &two).unwrap().len(), 2 * plain.len());
        // As pzstd writes it: announced frames that do not say their plain length.
        assert!(decode(&stage, &announced(&one)).unwrap() == plain);
        for cut in [0, 1, 3, 5, one.len() / 2, one.len() - 1] {
            refusal(&one[..cut]);
        }
        refusal(&[&one[..], b"garbage"].concat());
        refusal(b"not zstd at all");
    }

    #[test]
    fn what_a_codec_spoils_is_caught_before_it_leaves() {
        let plain = sample(1000);
        let frame = ::zstd::bulk::compress(&plain, 3).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        let mut check = |frame: &[u8], block: &[u8]| {
            verify_frame(&mut decompressor, frame, block, &mut Vec::new())
        };
        check(&frame, &plain).unwrap();
        let mut spoilt = frame.clone();
        spoilt[500] ^= 1;
        let other = sample(1001);
        for (frame, block) in [
            (&spoilt[..], &plain[..]),
            (&frame[..frame.len() - 1], &plain),
            (&frame, &plain[1..]),
            (&frame, &other),
        ] {
            let error = check(frame, block).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_level_out_of_range_becomes_the_nearest() {
        assert_eq!(Zstd::level(99).level, 22);
        assert_eq!(Zstd::level(-99).level, -7);
        let data = sample(1000);
        for level in Zstd::LEVELS {
            let coded = encode(&Zstd::level(level), &data);
            assert!(decode(&Zstd::level(1), &coded).unwrap() == data, "{level}");
        }
    }

    #[test]
    fn contexts_stay_within_what_memory_says() {
        let frames = [64 << 10, 256 << 10, 1 << 20, 2 << 20, MAX_FRAME];
        for (frame, level) in frames
            .iter()
            .flat_map(|f| Zstd::LEVELS.map(move |l| (*f, l)))
        {
            let mut compressor = Compressor::new(level).unwrap();
            let coded = compressor.compress(&vec![7; frame]).unwrap();
            let mut decompressor = DCtx::create();
            decompressor
                .decompress(&mut vec![0; frame][..], &coded)
                .unwrap();
            let used = compressor.context_mut().sizeof() + decompressor.sizeof();
            let said = Zstd { level, frame }.workspace();
            assert!(
                used <= said,
                "level {level}, frame {frame}: {used} > {said}"
            );
        }
    }
}
