//! SHA-256, and readers that compute it on the way.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::transform::Reader;
use crate::{Error, ErrorKind};

/// A SHA-256, written as 64 lower-case hex digits: what `sha256sum` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::new(ErrorKind::Invalid, format!("{text:?} is no SHA-256"));
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Length and digest of a run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Bytes.
    pub len: u64,
    /// Their SHA-256.
    pub sha256: Digest,
}

/// A running [`Measure`].
#[derive(Clone, Default)]
pub(crate) struct Hasher {
    len: u64,
    state: sha2::Sha256,
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.state.update(bytes);
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn finish(self) -> Measure {
        Measure {
            len: self.len,
            sha256: Digest(self.state.finalize().into()),
        }
    }
}

/// What a [`Hashing`] reader saw, for whoever waits on the other side of the pipeline.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<MeterState>);

#[derive(Default)]
struct MeterState {
    len: AtomicU64,
    done: Mutex<Option<Measure>>,
}

impl Meter {
    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.0.len.load(Ordering::Relaxed)
    }

    /// The whole measure, once the reader said that it ended.
    pub(crate) fn finished(&self) -> Option<Measure> {
        *self.0.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes bytes on and measures them.
pub(crate) struct Hashing {
    inner: Reader,
    hasher: Hasher,
    meter: Meter,
}

impl Hashing {
    pub(crate) fn new(inner: Reader, meter: Meter) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
            meter,
        }
    }
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if n > 0 {
            self.hasher.update(&buffer[..n]);
            self.meter.0.len.store(self.hasher.len(), Ordering::Relaxed);
        } else if !buffer.is_empty() {
            let mut done = self
                .meter
                .0
                .done
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *done = Some(self.hasher.clone().finish());
        }
        Ok(n)
    }
}
