use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::process::Env;
use backup_core::retention::Span;
use serde::{Deserialize, Deserializer, de};

/// A program whose standard output is one part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    pub(crate) argv: Vec<String>,
    #[serde(default = "default_part")]
    pub(crate) part: String,
    #[serde(default)]
    pub(crate) env: Env,
    #[serde(default)]
    pub(crate) env_clear: bool,
    pub(crate) directory: Option<PathBuf>,
    #[serde(default = "default_min_size")]
    pub(crate) min_size: u64,
    pub(crate) max_size: Option<u64>,
    #[serde(default)]
    pub(crate) magic: Marker,
    #[serde(default)]
    pub(crate) trailer: Marker,
    #[serde(default)]
    pub(crate) sha256_trailer: bool,
    pub(crate) timeout: Option<Span>,
    #[serde(default = "default_stall_timeout")]
    pub(crate) stall_timeout: Span,
    pub(crate) restore: Option<Vec<String>>,
}

fn default_part() -> String {
    "output".into()
}

fn default_min_size() -> u64 {
    1
}

fn default_stall_timeout() -> Span {
    Duration::from_secs(60 * 60).into()
}

impl Command {
    /// Runs `argv`, the program first. Its output must have at least one byte and may pause for
    /// an hour at most; the part is named `output`.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            part: default_part(),
            env: Env::default(),
            env_clear: false,
            directory: None,
            min_size: default_min_size(),
            max_size: None,
            magic: Marker::default(),
            trailer: Marker::default(),
            sha256_trailer: false,
            timeout: None,
            stall_timeout: default_stall_timeout(),
            restore: None,
        }
    }

    /// Names the part: `shop.sql`.
    #[must_use]
    pub fn part(mut self, name: impl Into<String>) -> Self {
        self.part = name.into();
        self
    }

    /// Sets an environment variable; the place for secrets.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env = self.env.with(name, value);
        self
    }

    /// Whether the program gets nothing of this process's environment.
    #[must_use]
    pub fn env_clear(mut self, clear: bool) -> Self {
        self.env_clear = clear;
        self
    }

    /// Runs it in `folder`.
    #[must_use]
    pub fn directory(mut self, folder: impl Into<PathBuf>) -> Self {
        self.directory = Some(folder.into());
        self
    }

    /// The fewest bytes that can be a backup. 0 allows an empty one.
    #[must_use]
    pub fn min_size(mut self, bytes: u64) -> Self {
        self.min_size = bytes;
        self
    }

    /// The most bytes that can be a backup; at one more the program is stopped.
    #[must_use]
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// The bytes that the output must begin with. In configuration text, or `hex:` and digits.
    #[must_use]
    pub fn magic(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.magic = Marker(bytes.into());
        self
    }

    /// The bytes that the output must end with: what tells a whole dump from half of one.
    #[must_use]
    pub fn trailer(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.trailer = Marker(bytes.into());
        self
    }

    /// Whether the last 32 bytes must be the SHA-256 of those before them, as in the snapshots of
    /// `etcdctl` and `talosctl`. They stay in the output.
    #[must_use]
    pub fn sha256_trailer(mut self, expected: bool) -> Self {
        self.sha256_trailer = expected;
        self
    }

    /// The longest that the program may run in all. Unlimited by default.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit.into());
        self
    }

    /// The longest that it may go without a byte. Time in which nobody reads does not count.
    #[must_use]
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.stall_timeout = limit.into();
        self
    }

    /// The command that takes the part back on its standard input, for `RESTORE.md`. Without it
    /// the instructions write the part to a file.
    #[must_use]
    pub fn restore(mut self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.restore = Some(argv.into_iter().map(Into::into).collect());
        self
    }
}

/// A program that takes a part on its standard input.
///
/// `Display` prints the program's name: what a caller repeats to overwrite what it replaces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandTarget {
    pub(crate) argv: Vec<String>,
    pub(crate) part: Option<String>,
    #[serde(default)]
    pub(crate) env: Env,
    #[serde(default)]
    pub(crate) env_clear: bool,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) empty_check: Option<Vec<String>>,
    pub(crate) timeout: Option<Span>,
}

impl CommandTarget {
    /// Runs `argv`, the program first, and feeds it the only part of the backup.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            part: None,
            env: Env::default(),
            env_clear: false,
            directory: None,
            empty_check: None,
            timeout: None,
        }
    }

    /// Feeds it this part, of a backup with several.
    #[must_use]
    pub fn part(mut self, name: impl Into<String>) -> Self {
        self.part = Some(name.into());
        self
    }

    /// Sets an environment variable; the place for secrets.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env = self.env.with(name, value);
        self
    }

    /// Whether the program gets nothing of this process's environment.
    #[must_use]
    pub fn env_clear(mut self, clear: bool) -> Self {
        self.env_clear = clear;
        self
    }

    /// Runs it in `folder`.
    #[must_use]
    pub fn directory(mut self, folder: impl Into<PathBuf>) -> Self {
        self.directory = Some(folder.into());
        self
    }

    /// A command that tells whether a restore would destroy something: exit status 0 says that
    /// nothing is there, 1 that something is (its first line of output says what), anything else
    /// that it does not know. Without it every restore must be confirmed.
    #[must_use]
    pub fn empty_check(mut self, argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.empty_check = Some(argv.into_iter().map(Into::into).collect());
        self
    }

    /// The longest that a restore may run in all. Unlimited by default.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit.into());
        self
    }
}

/// Bytes that must be somewhere.
#[derive(Clone, Default)]
pub(crate) struct Marker(pub(crate) Vec<u8>);

impl fmt::Debug for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl<'de> Deserialize<'de> for Marker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Some(digits) = text.strip_prefix("hex:") else {
            return Ok(Self(text.into_bytes()));
        };
        let pairs = digits.as_bytes().chunks(2);
        let bytes = pairs.map(|pair| match pair {
            [high, low] => {
                let digit = |c: &u8| char::from(*c).to_digit(16);
                u8::try_from(digit(high)? * 16 + digit(low)?).ok()
            }
            _ => None,
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        bytes.map(Self).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?}: after `hex:` come pairs of hexadecimal digits"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_says_what_the_setters_say() {
        let text = r#"
            argv = ["dump", "--all"]
            part = "all.dump"
            env = { PASSWORD = "hunter2" }
            env_clear = true
            magic = "hex:28b52FFD"
            trailer = "-- done\n"
            sha256_trailer = true
            timeout = "2h"
            stall_timeout = "90s"
        "#;
        let read: Command = toml::from_str(text).unwrap();
        let built = Command::new(["dump", "--all"])
            .part("all.dump")
            .env("PASSWORD", "hunter2")
            .env_clear(true)
            .magic(*b"\x28\xb5\x2f\xfd")
            .trailer("-- done\n")
            .sha256_trailer(true)
            .timeout(Duration::from_secs(7200))
            .stall_timeout(Duration::from_secs(90));
        assert_eq!(format!("{read:?}"), format!("{built:?}"));
        assert!(read.env.iter().eq(built.env.iter()));
        let target: CommandTarget = toml::from_str("argv = ['psql']\nempty_check = ['x']").unwrap();
        let built = CommandTarget::new(["psql"]).empty_check(["x"]);
        assert_eq!(format!("{target:?}"), format!("{built:?}"));
    }

    #[test]
    fn configuration_that_cannot_be_right_is_refused() {
        for bad in [
            "",
            "argv = 'sh -c x'",
            "argv = ['x']\nshell = true",
            "argv = ['x']\nmagic = 'hex:2'",
            "argv = ['x']\nmagic = 'hex:zz'",
            "argv = ['x']\ntimeout = '5'",
            "argv = ['x']\ntimeout = '5 m'",
            "argv = ['x']\ntimeout = 'm'",
            "argv = ['x']\ntimeout = '5µ'",
            "argv = ['x']\ntimeout = '99999999999999999999d'",
        ] {
            assert!(toml::from_str::<Command>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_of_the_environment_are_not_shown() {
        let shown = format!("{:#?}", Command::new(["x"]).env("PASSWORD", "hunter2"));
        assert!(
            shown.contains("PASSWORD") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
