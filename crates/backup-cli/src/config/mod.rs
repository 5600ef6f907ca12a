//! The configuration file: what may stand in it, and where each mistake is.
//!
//! A mistake is one line with the file, the line, the field, what is wrong and what to write
//! instead; it is found before anything is touched. `${NAME}` and `${NAME:-default}` are replaced
//! in every string, from the environment and from `.env` beside the file; `$${` is a plain `${`.
//! Relative paths are seen from the folder of the file.

mod check;
mod de;
mod environment;
mod load;
mod options;
mod schedule;
mod secret;
mod twelve;
mod units;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use backup_core::Secret;
use backup_core::retention::{PolicySpec, Span};
use serde::Deserialize;

pub use load::Loaded;
pub use options::Options;
pub(crate) use units::human;
pub use units::{Rate, Size};

/// Everything that a configuration file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Whether this host may hold what decrypts backups.
    #[serde(default)]
    pub role: Role,
    /// `production` makes every restore ask for `--force` and `--overwrite NAME`.
    pub environment: Option<String>,
    /// Where the jobs remember heads and what the next incremental needs. It may vanish.
    pub state_dir: Option<PathBuf>,
    /// Keys, or where they are.
    #[serde(default)]
    pub keys: Keys,
    /// The places that keep backups, by name.
    #[serde(default)]
    pub sinks: BTreeMap<String, Options>,
    /// What is backed up, by name.
    pub jobs: BTreeMap<String, JobConfig>,
    /// Where restores can go, by name.
    #[serde(default)]
    pub targets: BTreeMap<String, Options>,
}

/// What a host is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Backs up and restores.
    #[default]
    Operator,
    /// Only writes: refuses to run where an identity is, because what reads every backup should
    /// not lie on the host that an attacker enters first.
    Writer,
}

/// The keys of all jobs. A secret is a value, a file (`_file`) or the output of a program
/// (`_command`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Keys {
    /// Public: who can read the backups.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// What decrypts.
    pub identity: Option<Secret>,
    /// The file that decrypts, as `age-keygen` writes it.
    pub identity_file: Option<PathBuf>,
    /// The program that prints it.
    pub identity_command: Option<Vec<String>>,
    /// What signs.
    pub signing_key: Option<Secret>,
    /// The file that signs, as `minisign -G` writes it.
    pub signing_key_file: Option<PathBuf>,
    /// The program that prints it.
    pub signing_key_command: Option<Vec<String>>,
    /// Opens a signing key that has a password.
    pub signing_key_password: Option<Secret>,
    /// The file with the password.
    pub signing_key_password_file: Option<PathBuf>,
    /// The program that prints it.
    pub signing_key_password_command: Option<Vec<String>>,
    /// Public keys whose signatures count. With one of them set, anything unsigned is refused.
    #[serde(default)]
    pub trusted_keys: Vec<String>,
}

impl Keys {
    /// Whether a signing key is configured, in whatever way.
    pub(crate) fn can_sign(&self) -> bool {
        self.signing_key.is_some()
            || self.signing_key_file.is_some()
            || self.signing_key_command.is_some()
    }
}

/// One job.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct JobConfig {
    /// What to back up.
    pub source: Options,
    /// `zstd:3`, `gzip:6` or `none`.
    #[serde(default)]
    pub compress: Compress,
    /// Must be said where nothing encrypts.
    #[serde(default)]
    pub unencrypted: bool,
    /// Names of sinks.
    pub sinks: Vec<String>,
    /// How many copies make a backup; all, if not said.
    pub min_copies: Option<usize>,
    /// Cron, five fields.
    pub schedule: Option<String>,
    /// The zone of the schedule; UTC, if not said.
    pub timezone: Option<String>,
    /// What `prune` keeps; everything, if not said.
    pub retention: Option<PolicySpec>,
    /// Another policy for one sink.
    #[serde(default)]
    pub retention_by_sink: BTreeMap<String, PolicySpec>,
    /// Goes with every backup of this job.
    #[serde(default)]
    pub labels: Vec<String>,
    /// After this, readers may call the backup stale.
    pub expires_after: Option<Span>,
    /// Every object of a backup is locked for this long, in each sink that can.
    pub lock: Option<Span>,
    /// Whether a backup holds what changed since the one before, where the source can tell; no, if not
    /// said.
    #[serde(default)]
    pub incremental: bool,
    /// No run takes longer; orphans and possible parents younger than this stay.
    pub max_run: Option<Span>,
    /// A run in which no byte moves for this long fails.
    pub stall_timeout: Option<Span>,
    /// Codec threads; all cores within a small memory bound, if not said.
    pub threads: Option<usize>,
    /// The most bytes per second that are read from the source.
    pub rate_limit: Option<Rate>,
    /// Whether what was compressed is decoded again and compared; yes, if not said.
    pub verify_after_encode: Option<bool>,
    /// A `.minisig` beside every part, not only beside manifest and checksums.
    #[serde(default)]
    pub sign_parts: bool,
    /// What the owner of the data expects.
    #[serde(default)]
    pub objectives: Objectives,
}

/// A job's promises, for freshness checks and drills.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Objectives {
    /// How much time may be lost.
    pub rpo: Option<Span>,
    /// How long a restore may take.
    pub rto: Option<Span>,
}

/// How parts get smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// zstd at a level of 1 to 19.
    Zstd(i32),
    /// gzip at a level of 1 to 9.
    Gzip(u32),
    /// Not at all: for data that is compressed already.
    None,
}

impl Default for Compress {
    fn default() -> Self {
        Self::Zstd(3)
    }
}

impl std::str::FromStr for Compress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, level.parse::<u8>().ok()),
            None if text == "gzip" => (text, Some(6)),
            None => (text, Some(3)),
        };
        match (name, level) {
            ("zstd", Some(level @ 1..=19)) => Ok(Self::Zstd(level.into())),
            ("gzip", Some(level @ 1..=9)) => Ok(Self::Gzip(level.into())),
            ("none", _) if text == "none" => Ok(Self::None),
            _ => Err(format!(
                "{text:?} is no compression; write \"zstd:1\" to \"zstd:19\", \
                 \"gzip:1\" to \"gzip:9\" or \"none\""
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Compress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
