//! Compress, encrypt, sign: reversible stages, each with a stock tool that undoes it.
//!
//! A stage pulls in both directions, on a worker thread. The end of its input makes it finalise,
//! an error of its input comes out unchanged: there is no `finish` that somebody could forget.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::Result;

#[cfg(feature = "age")]
mod age;
#[cfg(any(feature = "zstd", feature = "gzip", feature = "age"))]
mod frames;
#[cfg(any(feature = "zstd", feature = "gzip", feature = "age"))]
mod guard;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "sign")]
mod sign;
#[cfg(all(
    test,
    feature = "zstd",
    feature = "gzip",
    feature = "age",
    feature = "sign"
))]
mod tests;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(feature = "age")]
pub use self::age::{Age, AgeKeyPair, age_keygen};
#[cfg(feature = "gzip")]
pub use self::gzip::Gzip;
#[cfg(feature = "sign")]
pub use self::sign::Sign;
#[cfg(feature = "zstd")]
pub use self::zstd::Zstd;

/// The id of the stage that signs parts. It leaves the bytes alone.
pub(crate) const SIGN: &str = "sign";

/// What a stage reads from and hands on.
pub type Reader = Box<dyn Read + Send>;

/// Compress, encrypt or sign: a reversible stage of the pipeline.
///
/// Run `backup_core::testing::transform!` on every implementation.
pub trait Transform: Debug + Send + Sync + 'static {
    /// `zstd`: recorded per part, in order, and how a reader finds the stage again.
    fn id(&self) -> &str;

    /// `.zst`: ends the part's stored name so that stock tools know it. Empty if the bytes stay
    /// as they are.
    fn suffix(&self) -> &str;

    /// Which slot of the pipeline it fits.
    fn stage(&self) -> Stage;

    /// The coded bytes of `plain`. At the end of `plain` the stage finalises; an error of `plain`
    /// comes out unchanged and nothing that makes the output look finished is written.
    ///
    /// A compressor that is asked to ([`Coding::verify`]) decodes what it made and compares it
    /// with what went in before a byte of it leaves; a difference is
    /// [`Corrupt`](crate::ErrorKind::Corrupt).
    fn encode(&self, plain: Reader, coding: &Coding) -> Result<Reader>;

    /// The plain bytes of `coded`. Bytes that this stage did not write, or not whole, end in
    /// [`Corrupt`](crate::ErrorKind::Corrupt) where the format allows to see it; without a key
    /// it is [`Denied`](crate::ErrorKind::Denied). Bytes after the end are an error too.
    fn decode(&self, coded: Reader, coding: &Coding) -> Result<Reader>;

    /// Whether [`decode`](Self::decode) has what it needs: `false` for an encryption whose key is
    /// elsewhere.
    fn can_decode(&self) -> bool {
        true
    }

    /// The stock command that undoes it, from standard input to standard output.
    fn undo(&self) -> StockCommand;

    /// The most bytes that one running stage holds.
    fn memory(&self, threads: usize) -> usize;
}

/// The slots of a pipeline, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Makes it smaller.
    Compress,
    /// Makes it unreadable without a key.
    Encrypt,
    /// Leaves the bytes alone and notes a signature.
    Sign,
}

/// What a running stage is told, and where it leaves what it learned.
///
/// A handle: clones share the notes.
#[derive(Clone, Debug)]
pub struct Coding {
    threads: usize,
    verify: bool,
    notes: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Coding {
    /// At least one thread.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
            verify: true,
            notes: Arc::default(),
        }
    }

    /// Whether compressors check their own output. On by default.
    #[must_use]
    pub fn verifying(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// How many worker threads the stage may use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Whether a compressor checks its own output.
    pub fn verify(&self) -> bool {
        self.verify
    }

    /// Leaves what is known at the end (recipients, a signature) for the part's record.
    pub fn note(&self, name: &str, value: impl Into<Value>) {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), value.into());
    }

    /// What was noted so far.
    pub fn notes(&self) -> BTreeMap<String, Value> {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A program that is not ours, with its arguments: one step of a `RESTORE.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockCommand {
    argv: Vec<String>,
}

impl StockCommand {
    /// Program and arguments. `$NAME` in an argument stays as it is: the reader of the
    /// instructions sets it.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
        }
    }

    /// The program.
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// Program and arguments.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }
}

/// As a POSIX shell takes it. Arguments with a `$` are put in double quotes, others that need it
/// in single quotes.
impl fmt::Display for StockCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.argv.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                f.write_str(word)?;
            } else if word.contains('$') && !word.contains(['"', '`', '\\']) {
                write!(f, "\"{word}\"")?;
            } else {
                write!(f, "'{}'", word.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}
