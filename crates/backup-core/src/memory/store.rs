//! A source and a target in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::held;
use crate::{
    ByteStream, Facts, Occupancy, PartReader, PartWriter, Request, RestoreOptions, RestoreStep,
    Result, Source, StockCommand, Target,
};

/// A source with parts in memory, of kind `memory`.
#[derive(Clone)]
pub struct MemorySource {
    parts: Vec<(String, Bytes)>,
    facts: Facts,
}

impl MemorySource {
    /// These parts, by name, written in this order.
    pub fn new<N: Into<String>, B: Into<Bytes>>(parts: impl IntoIterator<Item = (N, B)>) -> Self {
        let parts = parts.into_iter();
        Self {
            parts: parts
                .map(|(name, bytes)| (name.into(), bytes.into()))
                .collect(),
            facts: Facts::new(),
        }
    }

    /// What the source claims to know at the end.
    #[must_use]
    pub fn facts(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }

    #[cfg(feature = "testing")]
    pub(crate) fn contents(&self) -> (&[(String, Bytes)], &Facts) {
        (&self.parts, &self.facts)
    }
}

#[async_trait]
impl Source for MemorySource {
    fn kind(&self) -> &str {
        "memory"
    }

    async fn backup(&self, _request: &Request, out: &PartWriter) -> Result<Facts> {
        for (name, bytes) in &self.parts {
            out.write(name, ByteStream::from_bytes(bytes.clone()))
                .await?;
        }
        Ok(self.facts.clone())
    }

    fn restore_steps(&self) -> Vec<RestoreStep> {
        let step = |(name, _): &(String, Bytes)| RestoreStep {
            part: name.clone(),
            what: "write into a file".to_owned(),
            command: StockCommand::new(["dd", &format!("of=$TARGET/{name}"), "status=none"]),
            tools: Vec::new(),
        };
        self.parts.iter().map(step).collect()
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySource({} parts)", self.parts.len())
    }
}

/// A target that collects the parts of a backup of any one kind, and publishes all or none.
#[derive(Clone)]
pub struct MemoryTarget {
    kind: String,
    parts: Arc<Mutex<BTreeMap<String, Bytes>>>,
    free: Option<u64>,
}

impl MemoryTarget {
    /// An empty target for what a [`MemorySource`] wrote.
    pub fn new() -> Self {
        Self::of_kind("memory")
    }

    /// An empty target that takes the backups of another kind of source.
    pub fn of_kind(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            parts: Arc::default(),
            free: None,
        }
    }

    /// Says that so many bytes are free, and takes more all the same.
    #[must_use]
    pub fn free(mut self, bytes: u64) -> Self {
        self.free = Some(bytes);
        self
    }

    /// All that the last restore brought back, by name.
    pub fn parts(&self) -> BTreeMap<String, Bytes> {
        held(&self.parts).clone()
    }

    /// One part of it.
    pub fn part(&self, name: &str) -> Option<Bytes> {
        held(&self.parts).get(name).cloned()
    }
}

impl Default for MemoryTarget {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Target for MemoryTarget {
    fn kind(&self) -> &str {
        &self.kind
    }

    async fn occupancy(&self) -> Result<Occupancy> {
        let parts = held(&self.parts);
        if parts.is_empty() {
            return Ok(Occupancy::Empty);
        }
        let bytes: usize = parts.values().map(Bytes::len).sum();
        let holds = format!("{} parts, {bytes} bytes", parts.len());
        Ok(Occupancy::Holds(holds))
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        Ok(self.free)
    }

    fn publishes_atomically(&self) -> bool {
        true
    }

    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        options.no_extra(self.kind())?;
        let mut all = BTreeMap::new();
        for name in parts.names() {
            let bytes = parts.open(name).await?.collect(usize::MAX).await?;
            all.insert(name.to_owned(), bytes);
        }
        *held(&self.parts) = all;
        Ok(())
    }
}

impl fmt::Display for MemoryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl fmt::Debug for MemoryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryTarget({} parts)", held(&self.parts).len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_bytes() {
        let source = MemorySource::new([("a", "canary")]);
        assert_eq!(format!("{source:?}"), "MemorySource(1 parts)");
    }
}
