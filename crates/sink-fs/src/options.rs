use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// A folder that keeps backups.
///
/// In configuration: `{ path = "/var/backups/lifebelt" }`. `Display` prints the path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsSink {
    pub(crate) path: PathBuf,
}

impl FsSink {
    /// Keeps objects below `path`, which the first put creates where it is missing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl fmt::Display for FsSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
