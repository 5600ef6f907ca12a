//! A stage that fails.

use std::io::{self, Read};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::{Call, Fault, First, Plan, Step, Tampering};
use crate::transform::{Reader, Stage};
use crate::{Coding, Error, ErrorKind, Result, StockCommand, Transform};

/// A stage around another whose output goes wrong as planned. Clones share the counts.
///
/// [`Fault::StallAfter`] blocks its thread until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct FaultyTransform<T> {
    inner: T,
    plan: Plan,
    alive: Arc<()>,
}

impl<T: Transform> FaultyTransform<T> {
    /// Codes as `inner` does, until faults are added.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            plan: Plan::default(),
            alive: Arc::default(),
        }
    }

    /// The `nth` [`Call::Encode`] or [`Call::Decode`], counted from 1, goes wrong.
    #[must_use]
    pub fn at(mut self, call: Call, nth: u64, fault: Fault) -> Self {
        self.plan.add(call, First::Only(nth), fault);
        self
    }

    /// The `nth` call and all after it go wrong.
    #[must_use]
    pub fn from(mut self, call: Call, nth: u64, fault: Fault) -> Self {
        self.plan.add(call, First::From(nth), fault);
        self
    }

    /// How many calls went wrong.
    pub fn fired(&self) -> u64 {
        self.plan.fired()
    }

    fn output(
        &self,
        call: Call,
        input: Reader,
        code: impl FnOnce(Reader) -> Result<Reader>,
    ) -> Result<Reader> {
        let Some(mut armed) = self.plan.next(call) else {
            return code(input);
        };
        match armed.fault {
            Fault::Fail(kind) => Err(armed.fail(kind)),
            Fault::Pretend => {
                armed.fire();
                Ok(Box::new(io::empty()))
            }
            _ => Ok(Box::new(Tampered {
                inner: code(input)?,
                tampering: Tampering::new(armed),
                alive: Arc::downgrade(&self.alive),
            })),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: Transform> Transform for FaultyTransform<T> {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn suffix(&self) -> &str {
        self.inner.suffix()
    }

    fn stage(&self) -> Stage {
        self.inner.stage()
    }

    fn encode(&self, plain: Reader, coding: &Coding) -> Result<Reader> {
        self.output(Call::Encode, plain, |plain| {
            self.inner.encode(plain, coding)
        })
    }

    fn decode(&self, coded: Reader, coding: &Coding) -> Result<Reader> {
        self.output(Call::Decode, coded, |coded| {
            self.inner.decode(coded, coding)
        })
    }

    fn can_decode(&self) -> bool {
        self.inner.can_decode()
    }

    fn undo(&self) -> StockCommand {
        self.inner.undo()
    }

    fn memory(&self, threads: usize) -> usize {
        self.inner.memory(threads)
    }
}

/// Bytes with a fault in them.
struct Tampered {
    inner: Reader,
    tampering: Tampering,
    alive: Weak<()>,
}

impl Read for Tampered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = match self.tampering.step()? {
            Step::Pass(limit) => limit.min(buffer.len()),
            Step::Cut => {
                if self.inner.read(&mut [0])? > 0 {
                    self.tampering.armed.fire();
                    io::copy(&mut self.inner, &mut io::sink())?;
                }
                return Ok(0);
            }
            Step::Stall => {
                while self.alive.strong_count() > 0 {
                    thread::sleep(Duration::from_millis(5));
                }
                return Err(Error::new(ErrorKind::Cancelled, "the stalled stage is gone").into());
            }
        };
        if let Fault::Slow(delay) = self.tampering.armed.fault {
            self.tampering.armed.fire();
            thread::sleep(delay);
        }
        let n = self.inner.read(&mut buffer[..limit])?;
        self.tampering.pass(&mut buffer[..n]);
        if n == 0 && limit > 0 {
            return self
                .tampering
                .end()
                .map_or(Ok(0), |error| Err(error.into()));
        }
        Ok(n)
    }
}
