//! Compression with gzip, for readers that have nothing else.

use std::io::{self, BufReader, Read, Write};
use std::ops::RangeInclusive;

use flate2::bufread::MultiGzDecoder;
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};

use super::frames::{self, Work};
use super::{Coding, Reader, Stage, StockCommand, Transform, guard};
use crate::pipeline::thread::read_full;
use crate::{Error, ErrorKind, Result};

/// Compresses with gzip. [`Zstd`](super::Zstd) is better in every way but one: `gzip` is
/// everywhere.
///
/// The stream is a row of members of at most 1 MiB of plain bytes each, which `gzip -d` joins
/// ([RFC 1952](https://www.rfc-editor.org/rfc/rfc1952), 2.2). All but the last say in an extra
/// field `LB` that more follows: `gzip` ignores it, this stage takes a stream that ends with such
/// a member for cut short. Decodes any gzip stream, on one thread; bytes after it are refused.
#[derive(Clone, Debug)]
pub struct Gzip {
    level: u32,
}

const MEMBER: usize = 1024 * 1024;
/// An extra field with the name `LB`, no bytes long.
const MORE: [u8; 4] = [b'L', b'B', 0, 0];
/// What deflate, its checksums and its header may add to bytes that do not compress.
const SLACK: usize = MEMBER / 1000 + 1024;
/// Window and tables of one compressor or decompressor, generously.
const WORKSPACE: usize = 512 * 1024;

impl Gzip {
    /// The levels of gzip.
    pub const LEVELS: RangeInclusive<u32> = 1..=9;

    /// A compressor; a level outside of [`LEVELS`](Self::LEVELS) becomes the nearest one. 6 is
    /// gzip's own default.
    pub fn level(level: u32) -> Self {
        Self {
            level: level.clamp(*Self::LEVELS.start(), *Self::LEVELS.end()),
        }
    }
}

/// Level 6.
impl Default for Gzip {
    fn default() -> Self {
        Self::level(6)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    More,
    Last,
}

impl Transform for Gzip {
    fn id(&self) -> &str {
        "gzip"
    }

    fn suffix(&self) -> &str {
        ".gz"
    }

    fn stage(&self) -> Stage {
        Stage::Compress
    }

    fn encode(&self, mut plain: Reader, coding: &Coding) -> Result<Reader> {
        let mut ended = false;
        let feed = move |block: &mut Vec<u8>| {
            if ended {
                return Ok(None);
            }
            block.resize(MEMBER, 0);
            let n = read_full(&mut plain, block)?;
            block.truncate(n);
            ended = n < MEMBER;
            Ok(Some(if ended { Member::Last } else { Member::More }))
        };
        let level = Compression::new(self.level);
        let verify = coding.verify();
        frames::map("gzip", coding.threads(), feed, || {
            let mut check = Vec::new();
            Ok(
                Box::new(move |member, block: &mut Vec<u8>, coded: &mut Vec<u8>| {
                    compress(level, member, block, coded)?;
                    if verify {
                        verify_member(coded, block, &mut check)?;
                    }
                    Ok(())
                }) as Work<Member>,
            )
        })
    }

    fn decode(&self, coded: Reader, _: &Coding) -> Result<Reader> {
        let coded = BufReader::with_capacity(64 * 1024, guard::input(coded));
        Ok(Box::new(Members(MultiGzDecoder::new(coded))))
    }

    fn undo(&self) -> StockCommand {
        StockCommand::new(["gzip", "-dc"])
    }

    fn memory(&self, threads: usize) -> usize {
        frames::blocks(threads) * MEMBER
            + frames::results(threads) * (MEMBER + SLACK)
            + threads.max(1) * (MEMBER + 2 * WORKSPACE)
    }
}

fn compress(level: Compression, member: Member, block: &[u8], coded: &mut Vec<u8>) -> Result<()> {
    coded.clear();
    coded.reserve(MEMBER + SLACK);
    let mut builder = GzBuilder::new();
    if member == Member::More {
        builder = builder.extra(MORE);
    }
    let mut encoder = builder.write(coded, level);
    encoder
        .write_all(block)
        .and_then(|()| encoder.try_finish())
        .map_err(|e| Error::new(ErrorKind::Other, "gzip refuses to work").with_source(e))
}

fn verify_member(coded: &[u8], block: &[u8], plain: &mut Vec<u8>) -> Result<()> {
    plain.clear();
    plain.reserve(block.len());
    match GzDecoder::new(coded).read_to_end(plain) {
        Ok(_) if plain == block => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Corrupt,
            "what gzip compressed does not decompress to the same bytes: this machine cannot be trusted",
        )),
    }
}

struct Members(MultiGzDecoder<BufReader<Reader>>);

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self
            .0
            .read(buffer)
            .map_err(|e| guard::damage("the gzip stream", e))?;
        let says_more = |extra: &[u8]| extra == MORE;
        if n == 0
            && !buffer.is_empty()
            && self
                .0
                .header()
                .and_then(|h| h.extra())
                .is_some_and(says_more)
        {
            return Err(Error::new(ErrorKind::Corrupt, "the gzip stream is cut short").into());
        }
        Ok(n)
    }
}
