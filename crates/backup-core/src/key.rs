//! Names of stored objects.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// The name of one object in a sink: one or more segments joined with `/`.
///
/// A segment is 1 to 200 characters of `A-Z a-z 0-9 . _ - +`, does not begin with `.` or `-` and
/// is the same on every file system and object store that we know. So a key needs no escaping
/// anywhere, is no option of a program, can never leave a sink's root, and never collides with a
/// sink's own hidden files.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl Key {
    /// Checks a whole key.
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        for segment in text.split('/') {
            Self::check(segment)?;
        }
        if text.len() > 900 {
            return Err(invalid(&text, "is longer than 900 characters"));
        }
        Ok(Self(text))
    }

    /// Checks one segment: the rule for job names and part names too.
    pub fn check(segment: &str) -> Result<()> {
        if segment.is_empty() || segment.len() > 200 {
            return Err(invalid(segment, "must have 1 to 200 characters"));
        }
        if segment.starts_with(['.', '-']) {
            return Err(invalid(segment, "must not begin with a dot or a dash"));
        }
        match segment
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || "._-+".contains(*c)))
        {
            Some(c) => Err(invalid(
                segment,
                &format!("has {c:?}; letters, digits and . _ - + are allowed"),
            )),
            None => Ok(()),
        }
    }

    /// This key with one more segment.
    pub fn join(&self, segment: &str) -> Result<Self> {
        Self::parse(format!("{}/{segment}", self.0))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether this key lies under `prefix`, compared by whole segments. A key is under itself.
    pub fn is_under(&self, prefix: &Key) -> bool {
        self.0
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn invalid(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("name {name:?} {why}"))
}

impl TryFrom<String> for Key {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_the_root_or_hide() {
        for bad in [
            "", "/", "a//b", "../a", "a/..", "a/.tmp", "a b", "a\\b", "a\0", "ü", "a/", "-rf",
            "a/-",
        ] {
            assert!(Key::parse(bad).is_err(), "{bad:?} must be refused");
        }
        assert!(Key::parse("orders/20261121T020000Z-1a2b3c4d/db.dump.zst.age").is_ok());
    }

    #[test]
    fn under_compares_whole_segments() {
        let key = Key::parse("orders-2/a").expect("valid");
        assert!(!key.is_under(&Key::parse("orders").expect("valid")));
        assert!(key.is_under(&Key::parse("orders-2").expect("valid")));
    }
}
