//! Snapshots that stay in a repository of the cluster: what we hold is a receipt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::settings::percent_encode;
use backup_core::{Delegated, Error, ErrorKind, Result, async_trait};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::OpenSearchSnapshot;
use super::named::Named;
use super::state::Snapshot;
use crate::client::{Call, Client};

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
    /// agreed to that, or that not every node can write into. Registers what is missing. `version` is
    /// what the server says of its own.
    pub(crate) async fn require(&self, client: &Client, version: &Value) -> Result<()> {
        let name = &self.repository;
        let found = client.find(&Call::get(self.path())).await?;
        let found = found.map(|mut found| found.get_mut(name).map(Value::take).unwrap_or_default());
        if let (Some(found), Some(register)) = (&found, &self.register) {
            register.compare(name, found)?;
        }
        let register = self.register.as_ref().map(|register| json!(register));
        let what = found.as_ref().or(register.as_ref());
        let what = what.ok_or_else(|| missing(name))?;
        if !self.unencrypted && !is_encrypted(what, version) {
            let (setting, values) = encryption(version).unwrap_or(TYPED);
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "repository `{name}` does not encrypt what it keeps, as one of type `s3` with `{setting}` = {} would: say `unencrypted = true` if what it keeps may lie in the clear",
                    values.join(" or ")
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

/// A setting and those of its values that encrypt.
type Encryption = (&'static str, &'static [&'static str]);

/// Since 3.1, which ignores the other one. `bucket_default` leaves it to the bucket, which need not.
const TYPED: Encryption = ("server_side_encryption_type", &["AES256", "aws:kms"]);
/// Before, where the first one is ignored.
const PLAIN: Encryption = ("server_side_encryption", &["true"]);

/// What a server of this version calls encryption at rest ("Register snapshot repository", settings
/// of `s3`).
fn encryption(version: &Value) -> Option<Encryption> {
    // With `compatibility.override_main_response_version`, before 3.0, it says 7.10.2 and no name.
    let ours = version["distribution"] == "opensearch";
    let number = version["number"].as_str().filter(|_| ours)?;
    let mut numbers = number.split('.').map(|number| number.parse::<u32>().ok());
    let version = (numbers.next()??, numbers.next()??);
    Some(if version < (3, 1) { PLAIN } else { TYPED })
}

/// Not where nobody can tell.
fn is_encrypted(found: &Value, version: &Value) -> bool {
    encryption(version).is_some_and(|(setting, values)| {
        found["type"] == "s3" && values.contains(&&*text(&found["settings"][setting]))
    })
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
    format!("/_snapshot/{}", percent_encode(repository))
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
        let (new, old) = ("server_side_encryption_type", "server_side_encryption");
        for (version, kind, setting, value, is) in [
            ("3.1.0", "s3", new, "AES256", true),
            ("3.10.0-SNAPSHOT", "s3", new, "aws:kms", true),
            ("4.0.0", "s3", new, "bucket_default", false),
            ("3.1.0", "s3", old, "true", false),
            ("3.0.0", "s3", old, "true", true),
            ("2.19.1", "s3", old, "false", false),
            ("2.19.1", "s3", new, "AES256", false),
            ("3.8.0", "s3", "bucket", "b", false),
            ("3.8.0", "fs", new, "AES256", false),
            ("3", "s3", new, "AES256", false),
            ("", "s3", old, "true", false),
        ] {
            let found = found(kind, setting, value);
            let version = json!({"distribution": "opensearch", "number": version});
            assert_eq!(is_encrypted(&found, &version), is, "{version}: {found}");
        }
        let other = json!({"number": "7.10.2"});
        assert!(!is_encrypted(&found("s3", new, "AES256"), &other));
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
