//! The way back.

use crate::{ByteStream, Error, ErrorKind, Facts, Result};

/// The parts of one backup, for a [`Target`](crate::Target) to read.
#[derive(Debug)]
pub struct PartReader {
    facts: Facts,
}

impl PartReader {
    /// The names of the parts, in the order in which they were written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }

    /// What the source knew at the end.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The plain bytes of one part, checked against the manifest: a difference ends in
    /// `Corrupt` instead of an end.
    pub async fn open(&self, name: &str) -> Result<ByteStream> {
        Err(Error::new(ErrorKind::NotFound, format!("no part `{name}`")))
    }
}
