//! Encryption by the server, of what lies on its disks.

use std::fmt;

use backup_core::{Error, ErrorKind, Result};
use http::HeaderMap;
use serde::Deserialize;

use crate::sink::text;

const ALGORITHM: &str = "x-amz-server-side-encryption";
const KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";

/// How the server encrypts what lies on its disks. In configuration: `"AES256"` or
/// `{ kms = "key id" }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub enum Encryption {
    /// With AES-256 and keys of the server.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of the key management service: its id, alias or ARN.
    #[serde(rename = "kms")]
    Kms(String),
}

impl Encryption {
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![(ALGORITHM, self.to_string())];
        if let Self::Kms(key) = self {
            headers.push((KEY, key.clone()));
        }
        headers
    }

    /// Whether the `HEAD` of an object tells of this encryption.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<()> {
        let wrong = |wanted: &str, told: &str| {
            let message =
                format!("encryption by {wanted} was asked for and the server tells of {told}");
            Err(Error::new(ErrorKind::Unsupported, message))
        };
        let told = text(headers, ALGORITHM).unwrap_or("none");
        if told != self.to_string() {
            return wrong(&self.to_string(), told);
        }
        match (self, text(headers, KEY)) {
            (Self::Kms(key), Some(told)) if !is_of(key, told) => wrong(key, told),
            _ => Ok(()),
        }
    }
}

/// Whether a server that was asked for `key` may tell of `told`. AWS tells the ARN of what was asked
/// for by its id, and MinIO `arn:aws:kms:` before the name. What an alias stands for only AWS knows.
fn is_of(key: &str, told: &str) -> bool {
    key.contains("alias/")
        || told
            .strip_suffix(key)
            .is_some_and(|before| before.is_empty() || before.ends_with([':', '/']))
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256 => "AES256",
            Self::Kms(_) => "aws:kms",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_what_servers_make_of_it() {
        let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";
        for (key, told, same) in [
            ("1234abcd", arn, true),
            (arn, arn, true),
            ("backups", "arn:aws:kms:backups", true),
            ("alias/backups", arn, true),
            ("234abcd", arn, false),
            ("5678", arn, false),
            (arn, "1234abcd", false),
        ] {
            assert_eq!(is_of(key, told), same, "{key} {told}");
        }
    }
}
