//! What a server says of a snapshot, and whether that is one.

use backup_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::Value;

/// `GET _snapshot/REPOSITORY/SNAPSHOT` (the documentation's "Get snapshot").
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) uuid: String,
    #[serde(default)]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) indices: Vec<String>,
    #[serde(default)]
    pub(crate) data_streams: Vec<String>,
    #[serde(default)]
    pub(crate) failures: Vec<Value>,
    #[serde(default)]
    pub(crate) shards: Shards,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Shards {
    #[serde(default)]
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) failed: u64,
    #[serde(default)]
    pub(crate) successful: u64,
}

impl Snapshot {
    pub(crate) fn is_running(&self) -> bool {
        self.state == "IN_PROGRESS"
    }

    /// Whether it has every shard of all `expected` indices. That a request was accepted says
    /// nothing, and neither does `SUCCESS` alone: with a name that no index has, a snapshot of
    /// nothing succeeds.
    pub(crate) fn require_whole(&self, expected: &[String], allow_partial: bool) -> Result<()> {
        let failed = |why: String| Err(Error::new(ErrorKind::Source, why));
        let reason = || match self.failures.first() {
            Some(failure) => {
                let text = |of: &str| failure[of].as_str().unwrap_or_default().to_owned();
                format!(" (`{}`: {})", text("index"), text("reason"))
            }
            None => String::new(),
        };
        match &*self.state {
            "SUCCESS" => {}
            "PARTIAL" if allow_partial => {}
            state => {
                let failed_shards = self.shards.failed;
                return failed(format!(
                    "the snapshot ended as {state}, with {failed_shards} shards that failed{}",
                    reason()
                ));
            }
        }
        let whole = self.shards.failed == 0 && self.shards.successful == self.shards.total;
        if !whole && !allow_partial {
            return failed(format!(
                "the snapshot has {} of {} shards{}",
                self.shards.successful,
                self.shards.total,
                reason()
            ));
        }
        match expected.iter().find(|name| !self.indices.contains(name)) {
            Some(name) => failed(format!("the snapshot lacks index `{name}`")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_whole_snapshot_is_one() {
        let said = |state: &str, failed: u64, indices: &[&str]| -> Snapshot {
            let failures = (failed > 0).then(|| json!({"index": "a", "shard_id": 0, "reason": "node shutdown", "status": "INTERNAL_SERVER_ERROR"}));
            serde_json::from_value(json!({
                "snapshot": "s", "uuid": "u", "state": state, "indices": indices,
                "failures": failures.into_iter().collect::<Vec<_>>(),
                "shards": {"total": 2, "failed": failed, "successful": 2 - failed},
            }))
            .unwrap()
        };
        let expected = ["a".to_owned()];
        said("SUCCESS", 0, &["a", "b"])
            .require_whole(&expected, false)
            .unwrap();
        said("PARTIAL", 1, &["a"])
            .require_whole(&expected, true)
            .unwrap();
        for (snapshot, partial, why) in [
            (
                said("PARTIAL", 1, &["a"]),
                false,
                "ended as PARTIAL, with 1 shards that failed (`a`: node shutdown)",
            ),
            (said("FAILED", 2, &["a"]), true, "ended as FAILED"),
            (
                said("INCOMPATIBLE", 0, &["a"]),
                true,
                "ended as INCOMPATIBLE",
            ),
            (said("SUCCESS", 1, &["a"]), false, "has 1 of 2 shards"),
            (said("SUCCESS", 0, &["b"]), true, "lacks index `a`"),
            (said("SUCCESS", 0, &[]), true, "lacks index `a`"),
        ] {
            let error = snapshot.require_whole(&expected, partial).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
