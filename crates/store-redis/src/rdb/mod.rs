//! The format of a snapshot: what Redis saves, sends to replicas and loads.

use std::collections::BTreeMap;
use std::fmt;

mod checksum;
mod digest;
mod grammar;
mod packed;
mod scratch;
mod visitor;
mod walker;

pub(crate) use digest::Digest;
pub(crate) use visitor::Visitor;
pub(crate) use walker::Walker;

/// The version of the format, which is also what tells Redis' from Valkey's: since they parted,
/// 12 to 79 is what Redis wrote, and 80 and above what Valkey did.
///
/// In use: 6 (Redis 2.6), 7 (3.2), 8 (4.0), 9 (5.0), 10 (7.0), 11 (7.2, Valkey 7.2 and 8), 12
/// (Redis 7.4 and 8), 80 (Valkey 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32);

/// How many bytes the magic has, version included.
pub(crate) const MAGIC: usize = 9;

impl Version {
    /// `REDIS0011` or `VALKEY080`.
    pub(crate) fn of_magic(magic: &[u8]) -> Option<Self> {
        let (digits, valkey) = match magic.strip_prefix(b"VALKEY") {
            Some(digits) => (digits, true),
            None => (magic.strip_prefix(b"REDIS")?, false),
        };
        let digits = std::str::from_utf8(digits).ok()?;
        let plain = magic.len() == MAGIC && digits.bytes().all(|digit| digit.is_ascii_digit());
        let version = Self(digits.parse().ok().filter(|_| plain)?);
        (version.is_valkey() == valkey).then_some(version)
    }

    pub(crate) fn is_valkey(self) -> bool {
        self.0 >= 80
    }

    /// The letters of the magic.
    pub(crate) fn magic(self) -> &'static str {
        match self.is_valkey() {
            true => "VALKEY",
            false => "REDIS",
        }
    }

    /// Whether every type and opcode of it is in our tables. Before 5 there was no checksum.
    pub(crate) fn is_known(self) -> bool {
        matches!(self.0, 5..=12 | 80)
    }

    /// Whether a server that writes `server` loads this one: none loads a newer version, and
    /// Valkey none of the versions that only Redis wrote (`rdb-version-check strict`, the default).
    pub(crate) fn loads_into(self, server: Self) -> bool {
        let of_redis = |version: Self| matches!(version.0, 12..=79);
        self <= server && (!of_redis(self) || of_redis(server))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.magic(), self.0)
    }
}

/// What is known of an RDB once it was walked to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) version: Version,
    pub(crate) bytes: u64,
    /// Whether a checksum was there to be compared.
    pub(crate) checksum: bool,
    /// `None` where the version is newer than this code, and has something that it does not know.
    pub(crate) content: Option<Content>,
}

/// What is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// Keys by database.
    pub(crate) keys: BTreeMap<u64, u64>,
    /// How many of them expire.
    pub(crate) expires: u64,
    /// Libraries of functions.
    pub(crate) functions: u64,
    /// Types of modules that have values or data in it.
    pub(crate) modules: Vec<String>,
    /// What the server noted ahead: `redis-ver`, `ctime`, `repl-id`.
    pub(crate) aux: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests;
