//! A source that fails.

use async_trait::async_trait;

use super::{Call, Fault, First, Plan, tamper};
use crate::{
    ByteStream, Delegated, Facts, MemorySource, PartWriter, Request, RestoreStep, Result, Source,
};

/// A [`MemorySource`] whose n-th part goes wrong: [`Call::Part`]. Clones share the counts.
///
/// [`Fault::Pretend`] and [`Fault::Cut`] are a source that lies: nothing below it can notice.
/// `FailAfter` the part's length is a program that dies after its last byte.
#[derive(Clone, Debug)]
pub struct FaultySource {
    inner: MemorySource,
    plan: Plan,
}

impl FaultySource {
    /// Writes everything as it is, until faults are added.
    pub fn new(inner: MemorySource) -> Self {
        Self {
            inner,
            plan: Plan::default(),
        }
    }

    /// The `nth` part, counted from 1 over all backups, goes wrong.
    #[must_use]
    pub fn at(mut self, nth: u64, fault: Fault) -> Self {
        self.plan.add(Call::Part, First::Only(nth), fault);
        self
    }

    /// The `nth` part and all after it go wrong.
    #[must_use]
    pub fn from(mut self, nth: u64, fault: Fault) -> Self {
        self.plan.add(Call::Part, First::From(nth), fault);
        self
    }

    /// How many parts went wrong.
    pub fn fired(&self) -> u64 {
        self.plan.fired()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Source for FaultySource {
    fn kind(&self) -> &str {
        self.inner.kind()
    }

    async fn backup(&self, _request: &Request, out: &PartWriter) -> Result<Facts> {
        let (parts, facts) = self.inner.contents();
        for (name, bytes) in parts {
            let data = ByteStream::from_bytes(bytes.clone());
            let Some(mut armed) = self.plan.next(Call::Part) else {
                out.write(name, data).await?;
                continue;
            };
            match armed.fault {
                Fault::Fail(kind) => return Err(armed.fail(kind)),
                Fault::Pretend => armed.fire(),
                _ => out.write(name, tamper(data, armed)).await?,
            }
        }
        Ok(facts.clone())
    }

    fn parts_at_once(&self) -> usize {
        self.inner.parts_at_once()
    }

    fn incremental(&self) -> bool {
        self.inner.incremental()
    }

    fn restore_steps(&self) -> Vec<RestoreStep> {
        self.inner.restore_steps()
    }

    fn delegated(&self) -> Option<&dyn Delegated> {
        self.inner.delegated()
    }
}
