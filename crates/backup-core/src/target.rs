//! What a restore writes into. Not the source: a drill restores elsewhere.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Error, ErrorKind, PartReader, Result};

/// A database, folder or program that receives a restored backup.
///
/// `Display` gives the name that a caller must repeat to overwrite it: a path, a URL without
/// password. The guard itself is in core, so that no target can forget it.
///
/// Run `backup_core::testing::target!` on every implementation.
#[async_trait]
pub trait Target: Debug + Display + Send + Sync + 'static {
    /// The kind of backup that it takes: the [`Source::kind`](crate::Source::kind) of the other
    /// side.
    fn kind(&self) -> &str;

    /// What a restore would destroy. No side effects.
    async fn occupancy(&self) -> Result<Occupancy>;

    /// How many bytes it can still take, where the place can tell. `None`: nobody knows.
    async fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Whether [`restore`](Self::restore) publishes everything in one step after its last read,
    /// so that a failure, at whatever point, leaves what was there before. Only such a target
    /// may restore in one pass; for all others core verifies every part first.
    fn publishes_atomically(&self) -> bool;

    /// Whether it brings back what the store kept itself, by the receipt in the
    /// [manifest](PartReader::manifest). Core knows nothing of that data: the target has to look
    /// whether it is there and whole before it touches anything.
    fn takes_receipts(&self) -> bool {
        false
    }

    /// Brings the parts back. Every stream must be read to its end before the result is
    /// published: the hash is known only there, and a damaged part ends in `Err`.
    ///
    /// Called only after the guard agreed to replace what [`occupancy`](Self::occupancy) told.
    /// When the future is dropped, children end and nothing is published.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()>;

    /// What is left to do for people after a restore with these options, a line each: where the
    /// data is now, how to look at it, how to go over to it.
    fn next_steps(&self, options: &RestoreOptions) -> Vec<String> {
        let _ = options;
        Vec::new()
    }
}

/// What is in a target now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupancy {
    /// Nothing would be lost.
    Empty,
    /// Something would: `37 tables, 1.2 GiB`.
    Holds(String),
}

/// What the caller asks of a target beyond the bytes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RestoreOptions {
    /// Replace what the target holds. Core sets it after its guard agreed.
    pub replace: bool,
    /// Options of one kind of target (`with_owners`, `tables`), by name. A target refuses a name
    /// that it does not know as [`unknown`](Self::unknown).
    pub extra: BTreeMap<String, Value>,
}

impl RestoreOptions {
    /// Refuses whatever is in [`extra`](Self::extra): for a kind of target without options of its own.
    pub fn no_extra(&self, kind: &str) -> Result<()> {
        let first = self.extra.keys().next();
        first.map_or(Ok(()), |name| Err(Self::unknown(kind, name)))
    }

    /// The value of an option. One that does not fit is [`Invalid`](ErrorKind::Invalid).
    pub fn read<T: DeserializeOwned>(name: &str, value: &Value) -> Result<T> {
        T::deserialize(value).map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("restore option `{name}`")).with_source(e)
        })
    }

    /// What a target says to an option that its kind does not have:
    /// [`Unsupported`](ErrorKind::Unsupported).
    pub fn unknown(kind: &str, name: &str) -> Error {
        let message = format!("a restore of kind `{kind}` has no option `{name}`");
        Error::new(ErrorKind::Unsupported, message)
    }
}
