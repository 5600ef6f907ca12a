//! Where bytes come from.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Id, Manifest, PartWriter, Result, StockCommand};

/// A store that can be backed up: a database, a bucket, a folder.
///
/// Run `backup_core::testing::source!` on every implementation.
#[async_trait]
pub trait Source: Debug + Send + Sync + 'static {
    /// What it is: `postgres`, `files`. Written into the manifest; a
    /// [`Target`](crate::Target) refuses another kind.
    fn kind(&self) -> &str;

    /// Writes every part, then returns what is known only at the end (versions, log range,
    /// counts).
    ///
    /// `Ok` claims that what was written is complete: a child's exit status, a trailer, a shard
    /// count has been looked at. A fact `size` is how many bytes the store takes: with it, core
    /// tells whether a restore has room. On `Err` nothing becomes visible anywhere. When the future is
    /// dropped, every child, slot and snapshot that it opened must end.
    async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts>;

    /// How many parts it writes side by side; more than that wait. Memory is bounded by it.
    fn parts_at_once(&self) -> usize {
        1
    }

    /// Whether it can build a backup on an earlier one of its job, [`Request::parent`].
    fn incremental(&self) -> bool {
        false
    }

    /// How the parts of a backup come back with the store's own tools, for `RESTORE.md`, in the
    /// order in which it is done. Each step reads the plain bytes of one part on its standard
    /// input; a part may have several, and steps of parts that a backup does not have are left out.
    fn restore_steps(&self) -> Vec<RestoreStep> {
        Vec::new()
    }

    /// For stores that keep the data themselves and hand out a receipt.
    fn delegated(&self) -> Option<&dyn Delegated> {
        None
    }
}

/// A backup that the store keeps itself: a snapshot of OpenSearch or Longhorn. The receipt,
/// set with [`PartWriter::receipt`], is all that we hold, and counts as no copy.
#[async_trait]
pub trait Delegated: Send + Sync {
    /// Whether the store still has, whole, what `receipt` names.
    async fn check(&self, receipt: &Value) -> Result<()>;

    /// Removes what `receipt` names. Missing: `Ok`. On `Err` the receipt is kept.
    async fn forget(&self, receipt: &Value) -> Result<()>;
}

/// One line of `RESTORE.md`: a part, and the command that takes its plain bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreStep {
    /// The part's name; with a `*` for anything in it, that of every part to do this with.
    pub part: String,
    /// What to do with it, for people: `unpack into an empty folder`.
    pub what: String,
    /// Reads the part on standard input.
    pub command: StockCommand,
    /// Programs that the command runs besides itself.
    pub tools: Vec<String>,
}

impl RestoreStep {
    /// A step that gives the plain bytes of `part` to the program `argv`.
    pub fn new(
        part: impl Into<String>,
        what: impl Into<String>,
        argv: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            part: part.into(),
            what: what.into(),
            command: StockCommand::new(argv),
            tools: Vec::new(),
        }
    }

    /// Names programs that the command runs besides itself: `curl`, where it is a shell.
    #[must_use]
    pub fn needs(mut self, tools: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tools.extend(tools.into_iter().map(Into::into));
        self
    }

    /// Whether it is for the part `name`.
    pub fn fits(&self, name: &str) -> bool {
        match self.part.split_once('*') {
            None => self.part == name,
            Some((begin, end)) => {
                name.len() >= begin.len() + end.len()
                    && name.starts_with(begin)
                    && name.ends_with(end)
            }
        }
    }
}

/// What a run asks of a source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The job's name.
    pub job: String,
    /// The id that this backup will have.
    pub id: Id,
    /// The backup that an incremental may build on, with [`PartWriter::build_on`]: the newest, which
    /// every sink of this run has, and all that it builds on. A full one is never wrong.
    pub parent: Option<Arc<Manifest>>,
    /// A disposable local folder of this job, for what the next incremental needs. It may be of another
    /// backup than `parent`: what is in it must say of which.
    pub state_dir: Option<std::path::PathBuf>,
}

impl Request {
    /// A request for a full backup.
    pub fn new(job: impl Into<String>, id: Id) -> Self {
        Self {
            job: job.into(),
            id,
            parent: None,
            state_dir: None,
        }
    }
}

/// What a source learned: identity and version of the server, positions, counts.
///
/// Names in use: `server_version`, `system_id`, `database`, `entries`, `bytes`, `log` (an object
/// with `system_id`, `timeline`, `start`, `stop`). Never a secret: facts are stored in plain text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Facts(BTreeMap<String, Value>);

impl Facts {
    /// No facts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// One fact.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_for_one_part_or_for_all_that_fit() {
        let fits = |pattern: &str, name| RestoreStep::new(pattern, "", ["cat"]).fits(name);
        assert!(fits("a.tar", "a.tar") && !fits("a.tar", "b.a.tar"));
        assert!(fits("*.ndjson", "orders.0.ndjson") && fits("a*", "a"));
        assert!(!fits("*.ndjson", "orders.requests"));
        assert!(!fits("ab*bc", "abc"), "no byte stands for two");
    }
}
