//! How a verb ends: an answer, or a line that says why not.

use std::process::ExitCode;

use backup_core::{Error, ErrorKind};
use serde_json::Value;

/// The exit codes, as the help lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Usage = 1,
    Failed = 2,
    Partial = 3,
    Unhealthy = 4,
    Damaged = 5,
    Refused = 6,
    Taken = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What a verb has to say, in both forms, and how the program ends.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) exit: Exit,
    /// Lines for people, the last one ended.
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn ok(text: impl Into<String>, json: Value) -> Self {
        Self {
            exit: Exit::Ok,
            text: text.into(),
            json,
        }
    }
}

/// What an error means for the caller of the program. Damage and a taken slot are told apart from
/// other failures only where the verb can meet them.
pub(crate) fn of_error(error: &Error, verb: &str) -> Exit {
    match (error.kind(), verb) {
        (ErrorKind::Invalid, _) => Exit::Usage,
        (ErrorKind::Refused, _) => Exit::Refused,
        (ErrorKind::Corrupt, "verify" | "restore" | "fetch") => Exit::Damaged,
        (ErrorKind::Locked, "run") => Exit::Taken,
        _ => Exit::Failed,
    }
}

/// What one could do about it, where the line itself does not say.
pub(crate) fn hint(error: &Error, verb: &str) -> Option<&'static str> {
    Some(match (error.kind(), verb) {
        (
            ErrorKind::NotFound,
            "show" | "why" | "verify" | "restore" | "fetch" | "hold" | "release",
        ) => "`lifebelt ls` lists what there is",
        (ErrorKind::Denied, "restore" | "fetch") => {
            "decrypting needs keys.identity_file; `lifebelt doctor` checks keys and rights"
        }
        (ErrorKind::Denied, _) => "`lifebelt doctor` checks keys and rights",
        (ErrorKind::Unavailable, _) => "a later try may succeed",
        (ErrorKind::Corrupt, "restore" | "fetch") => {
            "`lifebelt verify` shows which copies are good; --from SINK reads another one"
        }
        (ErrorKind::Locked, "run") => "the other run goes on; look again when it has ended",
        _ => return None,
    })
}
