//! The name of a backup.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::time::Stamp;
use crate::{Error, ErrorKind, Result};

/// The name of one backup: when it began, in UTC, and eight random hex digits:
/// `20261121T020000Z-1a2b3c4d`.
///
/// Ids sort by the clock of the writing host. That is for people; order among backups is their
/// sequence, which no clock can turn around.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// A new id for a backup that begins at `time`.
    pub fn new(time: SystemTime) -> Result<Self> {
        Ok(Self(format!(
            "{}-{}",
            Stamp::from(time).compact(),
            nonce()?
        )))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it began, to the second, by the clock of the host that wrote it.
    pub fn time(&self) -> SystemTime {
        Stamp::parse_compact(&self.0[..16]).map_or(SystemTime::UNIX_EPOCH, SystemTime::from)
    }
}

/// Eight random hex digits.
pub(crate) fn nonce() -> Result<String> {
    let mut bytes = [0u8; 4];
    getrandom::fill(&mut bytes).map_err(|e| {
        Error::new(ErrorKind::Other, "the system has no random numbers").with_source(e)
    })?;
    Ok(format!("{:08x}", u32::from_be_bytes(bytes)))
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let well_formed = text.len() == 25
            && text.is_ascii()
            && text.as_bytes()[16] == b'-'
            && text[17..]
                .bytes()
                .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
            && Stamp::parse_compact(&text[..16]).is_some();
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is no backup id; one looks like 20261121T020000Z-1a2b3c4d"),
            ))
        }
    }
}

impl TryFrom<String> for Id {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_id_tells_its_second() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_226_400);
        let id = Id::new(time).unwrap();
        assert_eq!(id.time(), time);
        assert_eq!(id.as_str().parse::<Id>().unwrap(), id);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for bad in [
            "",
            "latest",
            "20261121T020000Z-1A2b3c4d",
            "20261321T020000Z-1a2b3c4d",
            "20261121T020000Z-1a2b3c4d5",
        ] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }
}
