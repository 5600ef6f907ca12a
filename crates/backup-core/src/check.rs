//! What a plugin found when it looked at its own surroundings.

use std::fmt;

/// One thing that was looked at, for a person to read: the result of
/// [`Sink::examine`](crate::Sink::examine).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// What was looked at, in a word or two: `versioning`.
    pub name: String,
    /// How it stands.
    pub health: Health,
    /// What was found and, where it is not well, what to do: one line, lower case.
    pub detail: String,
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works, and somebody should look at it.
    Warn,
    /// Backups are at risk until it is mended.
    Fail,
}

impl Check {
    /// All is well with `name`.
    pub fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Health::Ok, detail)
    }

    /// `name` works, and somebody should look at it.
    pub fn warn(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Health::Warn, detail)
    }

    /// `name` must be mended.
    pub fn fail(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(name, Health::Fail, detail)
    }

    fn new(name: impl Into<String>, health: Health, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            health,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}
