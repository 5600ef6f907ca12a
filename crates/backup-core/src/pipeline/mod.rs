//! How bytes run from a source to its sinks, and back.
//!
//! Per part: source → SHA-256 of the plain bytes → compress → encrypt → SHA-256 of the stored
//! bytes → every sink. The source is read once. Codecs run on threads of the pipeline, bytes pass
//! through pipes that are bounded, and every pipe says how it ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::transform::{self, Stage};
use crate::{Error, ErrorKind, Result, Signer, Transform, Verifier};

pub(crate) mod decode;
pub(crate) mod encode;
mod fanout;
pub(crate) mod thread;

pub use encode::PartWriter;
pub(crate) use fanout::{Lane, Lanes};

/// A stage that makes bytes smaller: what [`Pipeline::compress`] takes.
pub trait Compressor: Transform {}

/// A stage that makes bytes unreadable: what [`Pipeline::encrypted`] takes.
pub trait Encryptor: Transform {}

#[cfg(feature = "zstd")]
impl Compressor for crate::transform::Zstd {}
#[cfg(feature = "gzip")]
impl Compressor for crate::transform::Gzip {}
#[cfg(feature = "age")]
impl Encryptor for crate::transform::Age {}

/// Which stages the bytes of a job run through, in slots, so that a wrong order cannot be written.
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// use backup_core::{Pipeline, transform::{Age, Zstd}};
/// let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
/// let pipeline = Pipeline::encrypted(Age::to([recipient])?).compress(Zstd::level(3));
/// # drop(pipeline); Ok(()) }
/// ```
#[derive(Clone)]
pub struct Pipeline {
    compress: Option<Arc<dyn Transform>>,
    encrypt: Option<Arc<dyn Transform>>,
    sign_parts: Option<Arc<dyn Transform>>,
    readers: Vec<Arc<dyn Transform>>,
    pub(crate) signer: Option<Arc<dyn Signer>>,
    pub(crate) verifier: Option<Arc<dyn Verifier>>,
    pub(crate) limits: Limits,
}

/// What bounds a pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) threads: usize,
    pub(crate) verify: bool,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) stall: Duration,
    pub(crate) object_size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: (cores / 2).max(1),
            verify: true,
            bytes_per_second: None,
            stall: Duration::from_secs(600),
            object_size: 64 << 30,
        }
    }
}

impl Pipeline {
    /// Everything that is stored is encrypted.
    pub fn encrypted(encrypt: impl Encryptor) -> Self {
        let mut pipeline = Self::unencrypted();
        pipeline.encrypt = Some(Arc::new(encrypt));
        pipeline
    }

    /// Who can read the sinks can read the backups.
    pub fn unencrypted() -> Self {
        Self {
            compress: None,
            encrypt: None,
            sign_parts: None,
            readers: Vec::new(),
            signer: None,
            verifier: None,
            limits: Limits::default(),
        }
    }

    /// A pipeline from stages that are known only at run time, such as those of a configuration:
    /// at most one of each, in the order compress, encrypt, sign, else `Invalid`.
    pub fn from_stages(stages: impl IntoIterator<Item = Arc<dyn Transform>>) -> Result<Self> {
        let mut pipeline = Self::unencrypted();
        let mut last = None;
        for stage in stages {
            let slot = stage.stage();
            if last.is_some_and(|last| last >= slot) {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "stage `{}` is in the wrong place: the order is compress, encrypt, sign, each at most once",
                        stage.id()
                    ),
                ));
            }
            last = Some(slot);
            match slot {
                Stage::Compress => pipeline.compress = Some(stage),
                Stage::Encrypt => pipeline.encrypt = Some(stage),
                Stage::Sign => pipeline.sign_parts = Some(stage),
            }
        }
        Ok(pipeline)
    }

    /// Compresses before anything else.
    #[must_use]
    pub fn compress(mut self, compress: impl Compressor) -> Self {
        self.compress = Some(Arc::new(compress));
        self
    }

    /// Signs manifests, checksums and records.
    #[must_use]
    pub fn sign(mut self, signer: impl Signer) -> Self {
        self.signer = Some(Arc::new(signer));
        self
    }

    /// Signs every part too, for tools that look at one file: costs one more hash over all bytes.
    /// The signed manifest holds the hash of every part without it.
    #[cfg(feature = "sign")]
    #[must_use]
    pub fn sign_parts(mut self, sign: crate::transform::Sign) -> Self {
        self.sign_parts = Some(Arc::new(sign));
        self
    }

    /// Refuses whatever these keys did not sign.
    #[must_use]
    pub fn trust(mut self, verifier: impl Verifier) -> Self {
        self.verifier = Some(Arc::new(verifier));
        self
    }

    /// One more stage that old backups may need when they are read.
    #[must_use]
    pub fn reads(mut self, stage: impl Transform) -> Self {
        self.readers.push(Arc::new(stage));
        self
    }

    /// Worker threads for codecs. Half the cores by default.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.limits.threads = threads.max(1);
        self
    }

    /// Whether what was compressed is decoded again and compared before it leaves. On by default.
    #[must_use]
    pub fn verify_after_encode(mut self, verify: bool) -> Self {
        self.limits.verify = verify;
        self
    }

    /// Reads the source no faster than this.
    #[must_use]
    pub fn rate_limit(mut self, bytes_per_second: u64) -> Self {
        self.limits.bytes_per_second = Some(bytes_per_second.max(1));
        self
    }

    /// A sink that takes nothing for so long has failed. Ten minutes by default.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.limits.stall = timeout;
        self
    }

    /// The most bytes of one stored object; longer parts get several. 64 GiB by default.
    #[must_use]
    pub fn object_size(mut self, bytes: u64) -> Self {
        self.limits.object_size = bytes.max(1);
        self
    }

    /// The stages of a part that is written now, in order.
    pub(crate) fn stages(&self) -> impl Iterator<Item = &Arc<dyn Transform>> {
        [&self.compress, &self.encrypt, &self.sign_parts]
            .into_iter()
            .flatten()
    }

    /// The stages named in a manifest that changed the bytes, in the order in which they were
    /// applied. One that this pipeline does not have is `Unsupported`.
    pub(crate) fn stages_named(&self, ids: &[String]) -> Result<Vec<Arc<dyn Transform>>> {
        ids.iter()
            // To read what was signed nobody needs a signer.
            .filter(|id| *id != transform::SIGN)
            .map(|id| {
                let mut known = self.stages().chain(&self.readers);
                known
                    .find(|stage| stage.id() == id)
                    .map(Arc::clone)
                    .ok_or_else(|| {
                        Error::new(
                            ErrorKind::Unsupported,
                            format!(
                                "stage `{id}` is needed to read this, and this pipeline lacks it"
                            ),
                        )
                    })
            })
            .collect()
    }

    /// The most bytes that one part in flight holds before it is fanned out to the sinks.
    pub(crate) fn memory_of_part(&self) -> usize {
        // Two pipes of the part itself, and the chunks that both sides of each have in hand.
        let pipes = 2 * (thread::SLOTS + 2) * crate::CHUNK;
        let stages = self.stages().map(|stage| stage.memory(self.limits.threads));
        pipes + stages.sum::<usize>()
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.stages().map(|stage| stage.id()).collect();
        f.debug_struct("Pipeline")
            .field("stages", &ids)
            .field("signed", &self.signer.is_some())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
