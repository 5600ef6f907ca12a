//! What the tests across crates share: keys, and jobs over folders.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use backup_core::transform::{Age, AgeKeyPair, Sign, Zstd, age_keygen};
use backup_core::{Job, JobBuilder, Pipeline, SigningKey, TrustedKeys};
use sink_fs::FsSink;

/// A key pair of each kind, as `lifebelt keygen` makes them.
#[derive(Debug)]
pub struct Keys {
    /// Opens what was encrypted.
    pub age: AgeKeyPair,
    /// Signs.
    pub signing: Arc<SigningKey>,
}

impl Keys {
    /// Fresh ones.
    pub fn new() -> Self {
        Self {
            age: age_keygen(SystemTime::UNIX_EPOCH),
            signing: Arc::new(SigningKey::generate().expect("random numbers")),
        }
    }

    /// zstd, age, every part and every document signed, nothing unsigned accepted.
    pub fn pipeline(&self) -> Pipeline {
        let age = Age::to([&self.age.recipient]).expect("a fresh recipient");
        let age = age
            .with_identity(self.age.identity.expose())
            .expect("a fresh identity");
        Pipeline::encrypted(age)
            .compress(Zstd::level(3))
            .sign_parts(Sign::with(self.signing.clone()))
            .sign(self.signing.clone())
            .trust(TrustedKeys::new([self.signing.public()]))
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

/// A job with one sink, a folder.
pub fn job(name: &str, keys: &Keys, folder: &Path) -> JobBuilder {
    Job::builder(name)
        .pipeline(keys.pipeline())
        .sink("disk", FsSink::new(folder))
}
