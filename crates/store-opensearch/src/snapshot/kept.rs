//! Snapshots that stay in a repository of the cluster: what we hold is a receipt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Delegated, Error, ErrorKind, Result, async_trait};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::OpenSearchSnapshot;
use super::named::Named;
use super::state::Snapshot;
use crate::client::{Call, Client};
use crate::names::encode;

/// A repository of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) repository: String,
    /// What it has to be, and is made where there is none of that name.
    pub(crate) register: Option<Register>,
    pub(crate) unencrypted: bool,
}

/// What a repository is, as `PUT /_snapshot/REPOSITORY` takes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, Value>,
}

/// What stands for a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    repository: String,
    snapshot: String,
    uuid: String,
    indices: Vec<String>,
    /// It lacks shards, and was taken all the same.
    #[serde(default)]
    partial: bool,
}

impl Kept {
    fn path(&self) -> String {
        path(&self.repository)
    }

    /// Refuses a repository that is not what it should be, that keeps data in the clear where nobody
    /// agreed to that, or that not every node can write into. Registers what is missing.
    pub(crate) async fn require(&self, client: &Client) -> Result<()> {
        let name = &self.repository;
        let found = client.find(&Call::get(self.path())).await?;
        let found = found.map(|mut found| found[name].take());
        if let (Some(found), Some(register)) = (&found, &self.register) {
            register.compare(name, found)?;
        }
        let register = self.register.as_ref().map(|register| json!(register));
        let what = found.as_ref().or(register.as_ref());
        let what = what.ok_or_else(|| missing(name))?;
        if !self.unencrypted && !is_encrypted(what) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "repository `{name}` has no `server_side_encryption_type` that encrypts: say `unencrypted = true` if what it keeps may lie in the clear"
                ),
            ));
        }
        if found.is_none() {
            let call = Call::new(Method::PUT, self.path()).json(what);
            let registered = client.send(&call).await;
            registered.map_err(|e| e.context(format!("register repository `{name}`")))?;
        }
        let verify = Call::new(Method::POST, format!("{}/_verify", self.path()));
        let verified = client.send(&verify).await.map(drop);
        verified.map_err(|e| e.context(format!("verify repository `{name}`")))
    }
}

impl Register {
    fn compare(&self, name: &str, found: &Value) -> Result<()> {
        let other = |what: String| {
            let message = format!("repository `{name}` is another than configured: {what}");
            Err(Error::new(ErrorKind::Refused, message))
        };
        if found["type"] != self.kind.as_str() {
            return other(format!("its type is {}", found["type"]));
        }
        for (setting, wanted) in &self.settings {
            // The server gives every value as text.
            let found = &found["settings"][setting];
            if text(found) != text(wanted) {
                return other(format!("its `{setting}` is {found}"));
            }
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether what the repository's type calls encryption at rest is on ("Register snapshot
/// repository", settings of `s3`). `bucket_default` leaves it to the bucket, which need not.
fn is_encrypted(found: &Value) -> bool {
    let settings = &found["settings"];
    let kind = settings["server_side_encryption_type"].as_str();
    let is_on = |value: &Value| text(value) == "true";
    found["type"] == "s3"
        && (matches!(kind, Some("AES256" | "aws:kms"))
            // Before 3.1.
            || is_on(&settings["server_side_encryption"]))
}

fn missing(repository: &str) -> Error {
    Error::new(
        ErrorKind::Source,
        format!(
            "the cluster has no repository `{repository}`: register it, or let the source do so (`register`)"
        ),
    )
}

fn path(repository: &str) -> String {
    format!("/_snapshot/{}", encode(repository))
}

impl Receipt {
    pub(crate) fn new(kept: &Kept, name: &str, snapshot: &Snapshot) -> Self {
        Self {
            repository: kept.repository.clone(),
            snapshot: name.to_owned(),
            uuid: snapshot.uuid.clone(),
            indices: snapshot.indices.clone(),
            partial: snapshot.state == "PARTIAL",
        }
    }

    pub(crate) fn read(receipt: &Value) -> Result<Self> {
        Self::deserialize(receipt).map_err(|e| {
            Error::new(ErrorKind::Corrupt, "the receipt is none of a snapshot").with_source(e)
        })
    }

    pub(crate) fn to_value(&self) -> Value {
        json!(self)
    }

    /// The snapshot that it stands for, if it is there; another one of its name is not ours.
    pub(crate) async fn find(&self, client: &Arc<Client>) -> Result<Option<(Named, Snapshot)>> {
        let repository = client.find(&Call::get(path(&self.repository))).await?;
        repository.ok_or_else(|| missing(&self.repository))?;
        let named = Named::new(client, &self.repository, &self.snapshot);
        match named.look().await {
            Ok(snapshot) if snapshot.uuid == self.uuid => Ok(Some((named, snapshot))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same, whole.
    pub(crate) async fn require(&self, client: &Arc<Client>) -> Result<Named> {
        let found = self.find(client).await?;
        let (named, snapshot) = found.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!(
                    "repository `{}` has no snapshot `{}` any more",
                    self.repository, self.snapshot
                ),
            )
        })?;
        snapshot.require_whole(&self.indices, self.partial)?;
        Ok(named)
    }
}

#[async_trait]
impl Delegated for OpenSearchSnapshot {
    /// The snapshot is there, ended well, and lacks none of its shards and indices.
    async fn check(&self, receipt: &Value) -> Result<()> {
        let receipt = Receipt::read(receipt)?;
        receipt.require(&self.client()?).await.map(drop)
    }

    /// Has the snapshot deleted, and no other: one of its name that somebody else made stays.
    async fn forget(&self, receipt: &Value) -> Result<()> {
        let receipt = Receipt::read(receipt)?;
        match receipt.find(&self.client()?).await? {
            Some((named, _)) => named.delete().await,
            None => Ok(()),
        }
    }
}

impl OpenSearchSnapshot {
    pub(crate) fn client(&self) -> Result<Arc<Client>> {
        Client::new(&self.server, Duration::from(self.timeout)).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_so_is_encrypted() {
        let found = |kind: &str, setting: &str, value: &str| json!({"type": kind, "settings": {setting: value}});
        for (kind, setting, value, is) in [
            ("s3", "server_side_encryption_type", "AES256", true),
            ("s3", "server_side_encryption_type", "aws:kms", true),
            ("s3", "server_side_encryption_type", "bucket_default", false),
            ("s3", "server_side_encryption", "true", true),
            ("s3", "server_side_encryption", "false", false),
            ("s3", "bucket", "b", false),
            ("fs", "server_side_encryption_type", "AES256", false),
        ] {
            let found = found(kind, setting, value);
            assert_eq!(is_encrypted(&found), is, "{found}");
        }
    }

    #[test]
    fn a_repository_is_compared_with_what_is_configured() {
        let register: Register = serde_json::from_value(
            json!({"type": "fs", "settings": {"location": "/r", "compress": true}}),
        )
        .unwrap();
        let found = |location: &str| json!({"type": "fs", "settings": {"location": location, "compress": "true", "more": "1"}});
        register.compare("r", &found("/r")).unwrap();
        let error = register.compare("r", &found("/other")).unwrap_err();
        assert!(
            error.to_string().contains("its `location` is \"/other\""),
            "{error}"
        );
        assert!(register.compare("r", &json!({"type": "s3"})).is_err());
    }
}
