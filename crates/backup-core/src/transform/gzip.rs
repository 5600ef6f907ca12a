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
/// What the fast levels add to bytes that do not compress: 5.5 % was seen.
const SLACK: usize = MEMBER / 16;
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
        // The decoder reads the first header as soon as it is made.
        Ok(guard::lazy(move || {
            let coded = BufReader::with_capacity(64 * 1024, guard::input(coded));
            Ok(Box::new(Members(MultiGzDecoder::new(coded))))
        }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::tests::{decode, encode, sample};

    fn refusal(coded: &[u8]) {
        let error = decode(&Gzip::default(), coded).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    }

    /// A stream of several small members, each as the stage makes them.
    fn members(plain: &[&[u8]]) -> Vec<u8> {
        let mut all = Vec::new();
        for (n, block) in plain.iter().enumerate() {
            let member = if n + 1 < plain.len() {
                Member::More
            } else {
                Member::Last
            };
            let mut coded = Vec::new();
            compress(Compression::new(6), member, block, &mut coded).unwrap();
            all.extend(coded);
        }
        all
    }

    #[test]
    fn no_cut_and_no_flipped_bit_passes_for_the_data() {
        let plain = sample(250);
        let coded = members(&[&plain[..100], &plain[100..200], &plain[200..]]);
        assert!(decode(&Gzip::default(), &coded).unwrap() == plain);
        for at in 0..coded.len() {
            refusal(&coded[..at]);
            for bit in 0..8 {
                let mut flipped = coded.clone();
                flipped[at] ^= 1 << bit;
                match decode(&Gzip::default(), &flipped) {
                    // Time, system and flags that say nothing of the data.
                    Ok(back) => assert!(back == plain, "bit {bit} of byte {at}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}"),
                }
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_an_error() {
        let coded = encode(&Gzip::default(), b"data");
        for garbage in [&b"x"[..], b"garbage", &[0; 512]] {
            refusal(&[&coded[..], garbage].concat());
        }
        refusal(b"");
    }

    #[test]
    fn a_stream_of_several_members_ends_with_one_that_says_so() {
        let plain = sample(2 * MEMBER);
        let coded = encode(&Gzip::level(1), &plain);
        let mut first = MultiGzDecoder::new(&coded[..]);
        first.read_exact(&mut [0]).unwrap();
        assert_eq!(first.header().unwrap().extra(), Some(&MORE[..]));
        first.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(first.header().unwrap().extra(), None);
    }

    #[test]
    fn what_a_codec_spoils_is_caught_before_it_leaves() {
        let plain = sample(1000);
        let good = members(&[&plain]);
        verify_member(&good, &plain, &mut Vec::new()).unwrap();
        let mut spoilt = good.clone();
        spoilt[300] ^= 1;
        for (coded, block) in [(&spoilt, &plain[..]), (&good, &plain[1..])] {
            let error = verify_member(coded, block, &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn bytes_that_do_not_compress_fit_into_what_memory_says() {
        let mut noise = vec![0; MEMBER];
        getrandom::fill(&mut noise).unwrap();
        for level in Gzip::LEVELS {
            let mut coded = Vec::new();
            compress(Compression::new(level), Member::More, &noise, &mut coded).unwrap();
            assert!(
                coded.len() <= MEMBER + SLACK,
                "level {level}: {}",
                coded.len()
            );
        }
    }
}
