//! One error type for every plugin: a small kind to act on, one line of text, and the cause.

use std::error::Error as StdError;
use std::fmt;
use std::io;

/// `std::result::Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, at this level only.
///
/// `Display` prints one line, lower case, that names the object concerned. It never repeats the
/// cause: walk [`std::error::Error::source`] for that, or call [`Error::chain`].
///
/// The type is opaque so that a plugin of another author can say everything that ours can.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync + 'static>>,
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The object is not there.
    NotFound,
    /// The key is taken; nothing was changed.
    AlreadyExists,
    /// Retention or a lock forbids the change until a date.
    Locked,
    /// The credentials lack the right.
    Denied,
    /// Bytes differ from what was written, or a signature does not fit.
    Corrupt,
    /// A guard of ours said no; the message says what would make it say yes.
    Refused,
    /// The other side cannot do this, or this build cannot read it.
    Unsupported,
    /// Configuration, argument or name that cannot be right.
    Invalid,
    /// The service is away or overloaded; a later try may succeed. The only transient kind.
    Unavailable,
    /// Somebody asked to stop, or the other end of a pipe vanished.
    Cancelled,
    /// The store that is backed up failed: its bytes are not to be trusted.
    Source,
    /// A place that keeps backups failed. Never mistaken for a warning of the source.
    Sink,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

impl Error {
    /// An error with one line of text, lower case, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            source: None,
        }))
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Wraps this error in a line that says what was being done, keeping its kind.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        Self::new(self.kind(), message).with_source(self)
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// This error and its causes on one line, joined with `: `.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }

    /// The same error once more, for a second receiver: kind and [`chain`](Self::chain) as text.
    ///
    /// Causes are not cloneable in general; their text is.
    pub fn duplicate(&self) -> Self {
        Self::new(self.kind(), self.chain())
    }

    /// An I/O error with a line of context. An [`Error`] that travelled inside `error` keeps its
    /// kind, so that what a source reported survives every `Read` in between.
    pub fn io(message: impl Into<String>, error: io::Error) -> Self {
        let kind = match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(inner) => inner.kind(),
            None => kind_of(&error),
        };
        Self::new(kind, message).with_source(error)
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
        io::ErrorKind::TimedOut
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    }
}

/// Lets an [`Error`] pass through a `Read` unchanged; [`From<io::Error>`] takes it out again.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::other(error)
    }
}

/// Takes out the [`Error`] that travelled inside, or translates the kind.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|e| e.is::<Error>()) {
            match error.into_inner().map(|e| e.downcast::<Error>()) {
                Some(Ok(inner)) => return *inner,
                Some(Err(other)) => return Error::new(ErrorKind::Other, other.to_string()),
                None => return Error::new(ErrorKind::Other, "unknown i/o error"),
            }
        }
        let kind = kind_of(&error);
        let message = error.to_string();
        Error::new(kind, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({:?}: {})", self.0.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_a_trip_through_io() {
        let there: io::Error = Error::new(ErrorKind::Source, "pg_dump exited 1").into();
        let back: Error = there.into();
        assert_eq!(back.kind(), ErrorKind::Source);
        assert_eq!(back.to_string(), "pg_dump exited 1");
    }

    #[test]
    fn display_does_not_repeat_the_cause() {
        let error =
            Error::new(ErrorKind::Denied, "bucket denies PutObject").context("put part `base.tar`");
        assert_eq!(error.to_string(), "put part `base.tar`");
        assert_eq!(
            error.chain(),
            "put part `base.tar`: bucket denies PutObject"
        );
        assert_eq!(error.kind(), ErrorKind::Denied);
    }
}
