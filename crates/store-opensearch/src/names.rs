//! Names of indices: which are chosen, what they become, and what their parts are called.

use std::fmt::Write;

use backup_core::Result;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::server::invalid;

/// Which names are meant: some of the server's patterns, where `*` stands for anything and a
/// leading `-` leaves out.
///
/// Names that begin with a dot are the server's own, and are meant only by a pattern that begins
/// with one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Patterns(Vec<String>);

impl Patterns {
    pub(crate) fn new(patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }

    pub(crate) fn checked(self) -> Result<Self> {
        let bad = |pattern: &&String| {
            let name = pattern.strip_prefix('-').unwrap_or(pattern);
            name.is_empty() || name.contains([',', '/', ' ', '"', '[', ']', '{', '}'])
        };
        match self.0.iter().find(bad) {
            None => Ok(self),
            Some(pattern) => Err(invalid(format!(
                "{pattern:?} is no pattern of names: write one for each, such as \"orders-*\" or \"-orders-test\""
            ))),
        }
    }

    /// Of a cluster: all names but the server's own, if there is no pattern that takes one in.
    pub(crate) fn choose(&self, name: &str) -> bool {
        self.take_in(name, !name.starts_with('.'))
    }

    /// Of a backup: whatever is in it, if there is no pattern that takes one in.
    pub(crate) fn want(&self, name: &str) -> bool {
        self.take_in(name, true)
    }

    fn take_in(&self, name: &str, by_itself: bool) -> bool {
        let (out, within): (Vec<&str>, Vec<&str>) = self
            .0
            .iter()
            .map(String::as_str)
            .partition(|p| p.starts_with('-'));
        let fits = |pattern: &&str| {
            glob(pattern, name) && pattern.starts_with('.') == name.starts_with('.')
        };
        let taken = match within.is_empty() {
            true => by_itself,
            false => within.iter().any(fits),
        };
        taken && !out.iter().any(|pattern| glob(&pattern[1..], name))
    }

    /// The patterns without a `*`, which name one thing that must be there.
    pub(crate) fn exact(&self) -> impl Iterator<Item = &str> {
        let names = self.0.iter().map(String::as_str);
        names.filter(|name| !name.contains('*') && !name.starts_with('-'))
    }

    /// Whether everything is meant.
    pub(crate) fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether `name` is `pattern`, where `*` stands for anything.
fn glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, rest)) => name.strip_prefix(before).is_some_and(|name| {
            let starts = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            rest.is_empty() || starts.into_iter().any(|at| glob(rest, &name[at..]))
        }),
    }
}

/// What restored indices are called: a name in which `*` stands for the old one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Rename {
    before: String,
    after: String,
}

impl TryFrom<String> for Rename {
    type Error = backup_core::Error;

    fn try_from(text: String) -> Result<Self> {
        match text.split_once('*') {
            Some((before, after)) if !after.contains('*') && text != "*" => Ok(Self {
                before: before.to_owned(),
                after: after.to_owned(),
            }),
            _ => Err(invalid(format!(
                "rename is {text:?}: write a name with one `*` for the old one, such as \"restored-*\""
            ))),
        }
    }
}

impl Rename {
    pub(crate) fn apply(&self, name: &str) -> String {
        format!("{}{name}{}", self.before, self.after)
    }

    /// The old name of what is called `name` now.
    pub(crate) fn undo<'a>(&self, name: &'a str) -> Option<&'a str> {
        let name = name.strip_prefix(&self.before)?;
        name.strip_suffix(&self.after).filter(|old| !old.is_empty())
    }
}

/// The part with the documents of one shard.
///
/// What no name of a part may have is written as `+` and its bytes in hexadecimal.
pub(crate) fn part(index: &str, shard: u32) -> String {
    let mut name = String::new();
    for (at, byte) in index.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(byte.into()),
            b'.' | b'-' if at > 0 => name.push(byte.into()),
            _ => _ = write!(name, "+{byte:02x}"),
        }
    }
    if name.len() > 180 {
        let digest = Sha256::digest(index);
        name.truncate(140);
        digest
            .iter()
            .take(16)
            .for_each(|byte| _ = write!(name, "{byte:02x}"));
    }
    format!("{name}.{shard}{DOCUMENTS}")
}

/// How the names of parts with documents end.
pub(crate) const DOCUMENTS: &str = ".ndjson";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_in_and_leave_out() {
        let patterns = Patterns::new(["a*", "b-*-d", "exact", "-a-test*", ".ours*"]);
        for name in ["a", "abc", "b-x-d", "b--d", "exact", ".ours-1"] {
            assert!(patterns.choose(name), "{name}");
        }
        for name in ["a-test-1", "b-x", "exactly", ".a", "c"] {
            assert!(!patterns.choose(name), "{name}");
        }
        assert!(Patterns::default().choose("x") && !Patterns::default().choose(".x"));
        assert!(!Patterns::new(["-x"]).choose("x") && Patterns::new(["-x"]).choose("y"));
        assert_eq!(patterns.exact().collect::<Vec<_>>(), ["exact"]);
        assert!(Patterns::new(["[object Object]"]).checked().is_err());
    }

    #[test]
    fn a_rename_can_be_undone() {
        let rename = Rename::try_from("old-*-1".to_owned()).unwrap();
        assert_eq!(rename.apply("x"), "old-x-1");
        assert_eq!(rename.undo("old-x-1"), Some("x"));
        assert_eq!(rename.undo("x"), None);
        for bad in ["x", "*", "*-*"] {
            assert!(Rename::try_from(bad.to_owned()).is_err());
        }
    }

    #[test]
    fn every_index_has_parts_of_its_own() {
        let long = "x".repeat(255);
        let longer = format!("{}y", "x".repeat(254));
        let names = ["a", "a.0", ".a", "+2ea", "ä", &long, &longer].map(|name| part(name, 0));
        for (at, name) in names.iter().enumerate() {
            backup_core::Key::check(name).unwrap();
            assert!(!names[..at].contains(name), "{name}");
        }
        assert_eq!(part(".ds-logs-000001", 3), "+2eds-logs-000001.3.ndjson");
    }
}
