//! Things that fail on purpose, at a chosen call, in a chosen way, and count that they did.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use backup_core::testing::faults::{Call, Fault, FaultySink};
//! use backup_core::{ByteStream, ErrorKind, Key, MemorySink, PutOptions, Sink};
//!
//! let full = Fault::FailAfter(3, ErrorKind::Sink);
//! let sink = FaultySink::new(MemorySink::new()).at(Call::Put, 1, full);
//! let (key, data) = (Key::parse("a").unwrap(), ByteStream::from_bytes("seven b"));
//! let error = sink.put(&key, data, &PutOptions::default()).await.unwrap_err();
//! assert_eq!(sink.fired(), 1);
//! assert_eq!(error.kind(), ErrorKind::Sink);
//! # }
//! ```
//!
//! A test of what happens on a fault first asserts that [`fired`](FaultySink::fired) counted it:
//! a fault that never fired proves nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};

use crate::{ByteStream, Error, ErrorKind, Result};

mod crash;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod transform;

pub use crash::{Crash, CrashSink};
pub use sink::FaultySink;
pub use source::FaultySource;
pub use transform::FaultyTransform;

/// What goes wrong. Offsets count bytes of data, items of a listing.
///
/// A fault that has no meaning for a call (a flipped byte of a deletion) lets it pass, unfired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Fails at once and does nothing.
    Fail(ErrorKind),
    /// Fails after so many bytes or items; at the very end too, instead of ending.
    FailAfter(u64, ErrorKind),
    /// Does everything, then fails all the same: the reply was lost.
    LoseReply(ErrorKind),
    /// Does nothing and says that all is well.
    Pretend,
    /// Takes or gives only so many bytes or items and says that it was all.
    Cut(u64),
    /// Takes or gives another byte at this offset.
    Flip(u64),
    /// Tells of every object one byte more than it has.
    WrongLength,
    /// Passes one byte at a time.
    Trickle,
    /// Waits before each chunk or item.
    Slow(Duration),
    /// Passes so many bytes or items, then never goes on and never ends, until it is dropped.
    StallAfter(u64),
}

/// The calls that can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names of the methods")]
pub enum Call {
    Put,
    Get,
    Stat,
    Delete,
    List,
    Children,
    Versions,
    Sweep,
    Encode,
    Decode,
    /// The writing of one part by a source.
    Part,
}

/// Which calls fail, and how often they did. Shared by all clones.
#[derive(Clone, Debug, Default)]
struct Plan {
    faults: Vec<(Call, First, Fault)>,
    calls: Arc<Mutex<BTreeMap<Call, u64>>>,
    fired: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug)]
enum First {
    Only(u64),
    From(u64),
}

impl Plan {
    fn add(&mut self, call: Call, first: First, fault: Fault) {
        self.faults.push((call, first, fault));
    }

    /// Counts a call and says what goes wrong in it.
    fn next(&self, call: Call) -> Option<Armed> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let n = calls.entry(call).or_default();
        *n += 1;
        let hit = |first: &First| match *first {
            First::Only(nth) => *n == nth,
            First::From(nth) => *n >= nth,
        };
        let found = self
            .faults
            .iter()
            .find(|(c, first, _)| *c == call && hit(first));
        found.map(|(_, _, fault)| Armed {
            fault: *fault,
            call,
            fired: Some(Arc::clone(&self.fired)),
        })
    }

    fn calls(&self, call: Call) -> u64 {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.get(&call).copied().unwrap_or_default()
    }

    fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }
}

/// A fault in one call.
#[derive(Debug)]
struct Armed {
    fault: Fault,
    call: Call,
    /// `None` once it was counted.
    fired: Option<Arc<AtomicU64>>,
}

impl Armed {
    fn fire(&mut self) {
        if let Some(fired) = self.fired.take() {
            fired.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn fail(&mut self, kind: ErrorKind) -> Error {
        self.fire();
        Error::new(kind, format!("injected fault: {:?} fails", self.call))
    }

    /// What a call without data does before it does anything.
    async fn enter(&mut self) -> Result<()> {
        match self.fault {
            Fault::Fail(kind) | Fault::FailAfter(_, kind) => return Err(self.fail(kind)),
            Fault::Slow(delay) => {
                self.fire();
                tokio::time::sleep(delay).await;
            }
            Fault::StallAfter(_) => {
                self.fire();
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        Ok(())
    }

    /// What it does when it is done.
    fn leave<T>(mut self, done: T) -> Result<T> {
        match self.fault {
            Fault::LoseReply(kind) => Err(self.fail(kind)),
            _ => Ok(done),
        }
    }
}

/// Bytes that pass through a fault, in whichever way they come.
struct Tampering {
    armed: Armed,
    passed: u64,
}

enum Step {
    /// Let at most so many bytes pass.
    Pass(usize),
    /// What follows is kept back.
    Cut,
    Stall,
}

impl Tampering {
    fn new(armed: Armed) -> Self {
        Self { armed, passed: 0 }
    }

    fn step(&mut self) -> Result<Step> {
        let room = |end: u64| usize::try_from(end - self.passed).unwrap_or(usize::MAX);
        Ok(match self.armed.fault {
            Fault::FailAfter(end, kind) if self.passed >= end => return Err(self.armed.fail(kind)),
            Fault::StallAfter(end) if self.passed >= end => {
                self.armed.fire();
                Step::Stall
            }
            Fault::Cut(end) if self.passed >= end => Step::Cut,
            Fault::FailAfter(end, _) | Fault::StallAfter(end) | Fault::Cut(end) => {
                Step::Pass(room(end))
            }
            Fault::Trickle => Step::Pass(1),
            _ => Step::Pass(usize::MAX),
        })
    }

    fn pass(&mut self, bytes: &mut [u8]) {
        let begin = self.passed;
        self.passed += bytes.len() as u64;
        match self.armed.fault {
            Fault::Flip(at) if (begin..self.passed).contains(&at) => {
                bytes[(at - begin) as usize] ^= 1;
                self.armed.fire();
            }
            Fault::Trickle if !bytes.is_empty() => self.armed.fire(),
            _ => {}
        }
    }

    /// The error that takes the place of a good end.
    fn end(&mut self) -> Option<Error> {
        match self.armed.fault {
            Fault::LoseReply(kind) => Some(self.armed.fail(kind)),
            _ => None,
        }
    }
}

/// `data`, with a fault in it.
fn tamper(data: ByteStream, armed: Armed) -> ByteStream {
    let state = Some((data, Bytes::new(), Tampering::new(armed)));
    ByteStream::new(stream::unfold(state, async |state| {
        let (mut data, mut rest, mut tampering) = state?;
        let limit = match tampering.step() {
            Ok(Step::Pass(limit)) => limit,
            Ok(Step::Cut) => 0,
            Ok(Step::Stall) => std::future::pending().await,
            Err(error) => return Some((Err(error), None)),
        };
        while rest.is_empty() {
            match data.next().await {
                Some(Ok(chunk)) => rest = chunk,
                Some(Err(error)) => return Some((Err(error), None)),
                None => return tampering.end().map(|error| (Err(error), None)),
            }
        }
        if limit == 0 {
            tampering.armed.fire();
            return drain(data).await.map(|error| (Err(error), None));
        }
        if let Fault::Slow(delay) = tampering.armed.fault {
            tampering.armed.fire();
            tokio::time::sleep(delay).await;
        }
        let mut piece = BytesMut::from(&*rest.split_to(rest.len().min(limit)));
        tampering.pass(&mut piece);
        Some((Ok(piece.freeze()), Some((data, rest, tampering))))
    }))
}

/// Takes what is left, so that whoever sends it notices nothing.
async fn drain(mut data: ByteStream) -> Option<Error> {
    while let Some(chunk) = data.next().await {
        if let Err(error) = chunk {
            return Some(error);
        }
    }
    None
}
