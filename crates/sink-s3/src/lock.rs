//! Object Lock: who may delete a version, and when.

use std::fmt;
use std::time::{Duration, SystemTime};

use backup_core::{Error, ErrorKind, Result, Stamp};
use http::HeaderMap;
use serde::Deserialize;

use crate::time;

pub(crate) const MODE: &str = "x-amz-object-lock-mode";
pub(crate) const UNTIL: &str = "x-amz-object-lock-retain-until-date";
pub(crate) const HOLD: &str = "x-amz-object-lock-legal-hold";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long each object is locked.
///
/// In configuration: `{ mode = "compliance", days = 30 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Who may lift it.
    pub mode: LockMode,
    /// From the moment when the put begins.
    pub days: u32,
}

/// Who may delete a locked version before its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Nobody, the owner of the account included.
    #[default]
    Compliance,
    /// Whoever has `s3:BypassGovernanceRetention`.
    Governance,
}

impl Lock {
    /// Nobody deletes an object for so many days.
    pub const fn compliance(days: u32) -> Self {
        Self {
            mode: LockMode::Compliance,
            days,
        }
    }

    /// Only credentials with a special right delete an object for so many days.
    pub const fn governance(days: u32) -> Self {
        Self {
            mode: LockMode::Governance,
            days,
        }
    }

    pub(crate) fn until(&self, now: SystemTime) -> SystemTime {
        now + DAY * self.days
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compliance => "COMPLIANCE",
            Self::Governance => "GOVERNANCE",
        })
    }
}

/// The lock of one version, as it is asked for and as a `HEAD` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    pub(crate) mode: LockMode,
    pub(crate) until: SystemTime,
}

impl Retention {
    pub(crate) fn new(mode: LockMode, until: SystemTime) -> Self {
        Self {
            mode,
            until: time::round_up(until),
        }
    }

    pub(crate) fn headers(&self) -> [(&'static str, String); 2] {
        [
            (MODE, self.mode.to_string()),
            (UNTIL, Stamp::from(self.until).to_string()),
        ]
    }

    /// `None`: not locked, or the credentials may not see it (`s3:GetObjectRetention`).
    pub(crate) fn told(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let mode = match text(MODE)? {
            "COMPLIANCE" => LockMode::Compliance,
            "GOVERNANCE" => LockMode::Governance,
            _ => return None,
        };
        let until = time::from_xml(text(UNTIL)?)?;
        Some(Self { mode, until })
    }

    /// Whether `told` protects as much as this asks for.
    pub(crate) fn check(&self, told: Option<Self>) -> Result<()> {
        let wanted = format!("{} until {}", self.mode, Stamp::from(self.until));
        let found = match told {
            Some(told) if told.mode == self.mode && told.until >= self.until => return Ok(()),
            Some(told) => format!("{} until {}", told.mode, Stamp::from(told.until)),
            None => "no lock".to_owned(),
        };
        Err(Error::new(
            ErrorKind::Sink,
            format!(
                "{wanted} was asked for and the server tells of {found} (credentials without \
                 s3:GetObjectRetention see none)"
            ),
        ))
    }
}

pub(crate) fn held(headers: &HeaderMap) -> bool {
    headers.get(HOLD).is_some_and(|value| value == "ON")
}
