//! Stages that break one promise each.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{assert_each_case_can_fail, panics};
use crate::testing::faults::{Call, Fault, FaultyTransform};
use crate::testing::transform::{self, TransformFixture};
use crate::transform::{Reader, Stage};
use crate::{Coding, Error, ErrorKind, Result, StockCommand, Transform};

crate::testing::transform!(toy, Toy::new(Sound));
crate::testing::transform!(without_faults, FaultyTransform::new(Toy::new(Sound)));
crate::testing::transform!(pair, (Toy::new(NoKey), Toy::new(Sound)));

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    Sound,
    /// Cannot decode and says so, which is right.
    NoKey,
    AcceptsGarbage,
    AcceptsTruncation,
    DecodesWithoutKey,
    EndsOnError,
    FinishesOnError,
    ForgetsKey,
    ForgetsReason,
    HidesChanges,
    HoldsAll,
    NoSuffix,
    SameNonce,
    SharesState,
    ShortReadIsEnd,
    ShowsSecret,
}

use Flaw::*;

const FRAME: usize = 65_535;

/// Stands in for an encryption: eight bytes of nonce, then frames of two bytes of length, so many
/// bytes, and a checksum over everything so far. An empty frame is the end.
struct Toy {
    flaw: Flaw,
    nonces: AtomicU64,
    shared: Arc<AtomicU64>,
}

impl Toy {
    fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            nonces: AtomicU64::new(1),
            shared: Arc::default(),
        }
    }
}

impl Transform for Toy {
    fn id(&self) -> &str {
        "toy"
    }

    fn suffix(&self) -> &str {
        if self.flaw == NoSuffix { "" } else { ".toy" }
    }

    fn stage(&self) -> Stage {
        Stage::Encrypt
    }

    fn encode(&self, mut plain: Reader, _: &Coding) -> Result<Reader> {
        let fresh = self.nonces.fetch_add(1, Ordering::SeqCst);
        let nonce = if self.flaw == SameNonce { 0 } else { fresh };
        if self.flaw == HoldsAll {
            let mut all = Vec::new();
            plain.read_to_end(&mut all)?;
            plain = Box::new(io::Cursor::new(all));
        }
        let shared = (self.flaw == SharesState).then(|| Arc::clone(&self.shared));
        Ok(Box::new(Encoder {
            flaw: self.flaw,
            plain,
            sum: nonce,
            shared,
            ready: io::Cursor::new(nonce.to_be_bytes().to_vec()),
            ended: false,
        }))
    }

    fn decode(&self, mut coded: Reader, _: &Coding) -> Result<Reader> {
        if matches!(self.flaw, NoKey | ForgetsKey) {
            return Err(Error::new(ErrorKind::Denied, "no key"));
        }
        let mut nonce = [0; 8];
        exactly(&mut coded, &mut nonce, self.flaw)?;
        Ok(Box::new(Decoder {
            flaw: self.flaw,
            coded,
            sum: u64::from_be_bytes(nonce),
            ready: io::Cursor::default(),
            ended: false,
        }))
    }

    fn can_decode(&self) -> bool {
        !matches!(self.flaw, NoKey | DecodesWithoutKey)
    }

    fn undo(&self) -> StockCommand {
        StockCommand::new(["toy", "-d"])
    }

    fn memory(&self, _: usize) -> usize {
        2 * FRAME
    }
}

impl fmt::Debug for Toy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.flaw == ShowsSecret {
            "hunter2"
        } else {
            "_"
        };
        write!(f, "Toy({:?}, {secret})", self.flaw)
    }
}

fn checksum(sum: u64, frame: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| {
        (sum ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23)
    };
    let words = frame.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_be_bytes(word)
    });
    mix(words.fold(sum, mix), frame.len() as u64)
}

struct Encoder {
    flaw: Flaw,
    plain: Reader,
    sum: u64,
    shared: Option<Arc<AtomicU64>>,
    ready: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Encoder {
    fn frame(&mut self, bytes: &[u8]) {
        self.sum = checksum(self.sum, bytes);
        if let Some(shared) = &self.shared {
            self.sum ^= shared.swap(self.sum, Ordering::SeqCst);
        }
        let mut frame = (bytes.len() as u16).to_be_bytes().to_vec();
        frame.extend_from_slice(bytes);
        frame.extend_from_slice(&self.sum.to_be_bytes());
        self.ready = io::Cursor::new(frame);
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; FRAME];
        let outcome = if self.flaw == ShortReadIsEnd {
            self.plain.read(&mut bytes)
        } else {
            crate::pipeline::thread::read_full(&mut self.plain, &mut bytes)
        };
        match (outcome, self.flaw) {
            (Ok(n), _) => {
                self.ended = n == 0 || self.flaw == ShortReadIsEnd && n < FRAME;
                self.frame(&bytes[..n]);
                Ok(())
            }
            (Err(_), EndsOnError) => {
                self.ended = true;
                self.frame(&[]);
                Ok(())
            }
            (Err(error), FinishesOnError) if !self.ended => {
                self.ended = true;
                self.frame(&[]);
                let error = Failed(Some(error));
                self.plain = Box::new(error);
                Ok(())
            }
            (Err(_), ForgetsReason) => Err(io::Error::other("encode failed")),
            (Err(error), _) => Err(error),
        }
    }
}

/// Tells late what happened early.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self
            .0
            .take()
            .unwrap_or_else(|| io::Error::other("failed before")))
    }
}

impl Read for Encoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.ready.get_ref().len() as u64 - self.ready.position();
        if left == 0 && !buffer.is_empty() {
            if !self.ended {
                self.fill()?;
            } else if self.flaw == FinishesOnError {
                return self.plain.read(buffer);
            }
        }
        self.ready.read(buffer)
    }
}

struct Decoder {
    flaw: Flaw,
    coded: Reader,
    sum: u64,
    ready: io::Cursor<Vec<u8>>,
    ended: bool,
}

fn exactly(coded: &mut Reader, buffer: &mut [u8], flaw: Flaw) -> io::Result<bool> {
    let n = match crate::pipeline::thread::read_full(coded, buffer) {
        Err(_) if flaw == ForgetsReason => Err(Error::new(ErrorKind::Corrupt, "not a toy"))?,
        outcome => outcome?,
    };
    match n == buffer.len() {
        false if flaw != AcceptsTruncation => Err(Error::new(ErrorKind::Corrupt, "cut short"))?,
        whole => Ok(whole),
    }
}

impl Decoder {
    fn fill(&mut self) -> io::Result<()> {
        let (mut len, mut sum) = ([0; 2], [0; 8]);
        let mut whole = exactly(&mut self.coded, &mut len, self.flaw)?;
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
        whole &= exactly(&mut self.coded, &mut bytes, self.flaw)?;
        whole &= exactly(&mut self.coded, &mut sum, self.flaw)?;
        self.sum = checksum(self.sum, &bytes);
        let right = self.sum == u64::from_be_bytes(sum);
        if !right && !matches!(self.flaw, HidesChanges | AcceptsTruncation) {
            return Err(Error::new(ErrorKind::Corrupt, "wrong checksum").into());
        }
        if bytes.is_empty() && self.flaw != AcceptsGarbage && self.coded.read(&mut [0])? > 0 {
            return Err(Error::new(ErrorKind::Corrupt, "bytes after the end").into());
        }
        self.ended = bytes.is_empty() || !whole;
        self.ready = io::Cursor::new(bytes);
        Ok(())
    }
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.ready.get_ref().len() as u64 - self.ready.position();
        if left == 0 && !self.ended && !buffer.is_empty() {
            self.fill()?;
        }
        self.ready.read(buffer)
    }
}

fn faulty(call: Call, fault: Fault) -> TransformFixture {
    FaultyTransform::new(Toy::new(Sound))
        .from(call, 1, fault)
        .into()
}

fn broken_for(case: &str) -> Vec<TransformFixture> {
    let flaws: &[Flaw] = match case {
        "reads_of_any_size_make_no_difference" => &[ShortReadIsEnd],
        "encodes_are_independent" => &[SameNonce, SharesState],
        "it_holds_no_more_than_it_declares" => &[HoldsAll],
        "an_error_of_the_plain_side_comes_out_unchanged" => &[EndsOnError, ForgetsReason],
        "a_failed_encode_does_not_look_finished" => &[EndsOnError, FinishesOnError],
        "an_error_of_the_coded_side_comes_out_unchanged" => &[ForgetsReason, AcceptsGarbage],
        "what_is_cut_short_is_corrupt" => &[AcceptsTruncation],
        "what_is_changed_is_never_taken_for_the_data" => &[HidesChanges],
        "bytes_after_the_end_are_corrupt" => &[AcceptsGarbage],
        "without_a_key_decode_is_denied" => &[ForgetsKey, DecodesWithoutKey, NoKey],
        "an_empty_suffix_means_unchanged_bytes" => &[NoSuffix],
        "it_declares_itself_and_shows_no_secret" => &[NoSuffix, ShowsSecret],
        _ => &[],
    };
    let secret = |flaw: &Flaw| TransformFixture::new(Toy::new(*flaw)).secret("hunter2");
    let mut broken: Vec<_> = flaws.iter().map(secret).collect();
    match case {
        "plain_bytes_come_back" => {
            broken.push(faulty(Call::Decode, Fault::Cut(1)));
            broken.push(faulty(Call::Decode, Fault::Flip(0)));
            broken.push(faulty(Call::Encode, Fault::Fail(ErrorKind::Other)));
        }
        "a_long_run_of_zeros_comes_back" => {
            broken.push(faulty(Call::Decode, Fault::Cut(1 << 27)));
        }
        "without_a_key_decode_is_denied" => {
            broken.push((Toy::new(DecodesWithoutKey), Toy::new(Sound)).into());
        }
        _ => {}
    }
    broken
}

macro_rules! by_name {
    ([$($case:ident)*]) => {
        const CASES: &[&str] = &[$(stringify!($case)),*];

        fn run(case: &str, fixture: &TransformFixture) {
            $(if case == stringify!($case) {
                return transform::$case(fixture);
            })*
        }
    };
}
crate::__transform_cases! { by_name {} }

#[test]
fn each_case_fails_on_a_broken_stage() {
    let files = [
        include_str!("../transform/mod.rs"),
        include_str!("../transform/flow.rs"),
        include_str!("../transform/damage.rs"),
    ];
    assert_each_case_can_fail(CASES, &files, |case| {
        let broken = broken_for(case);
        broken
            .iter()
            .map(|fixture| panics(|| run(case, fixture)))
            .collect()
    });
}
