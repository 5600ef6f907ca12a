//! Traits, pipeline, stored format and retention of the Lifebelt backup library.

mod boxed;
mod catalog;
mod chain;
mod claims;
mod clock;
mod consume;
mod copy;
mod digest;
mod document;
mod error;
mod event;
mod id;
mod job;
mod key;
#[cfg(feature = "sign")]
mod keys;
mod layout;
mod manifest;
mod memory;
mod patience;
mod pipeline;
mod recipe;
mod record;
mod restore;
pub mod retention;
mod secret;
mod signature;
mod sink;
mod source;
mod stream;
mod sums;
mod target;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
pub mod transform;

pub use catalog::{Catalog, Listed};
pub use chain::{Finding, Head};
pub use claims::{Claims, Taken};
pub use clock::{Clock, SystemClock};
pub use consume::{Publication, StreamReader};
pub use digest::{Digest, Measure};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Observer, Quiet};
pub use id::Id;
pub use job::{
    Backup, Copied, Copy, Handle, History, Job, JobBuilder, Level, Problem, Progress, PruneOptions,
    PrunePlan, PruneReport, Report, RestorePlan, RestoreRequest, Restored, RunOptions, Status,
    Verification,
};
pub use key::Key;
#[cfg(feature = "sign")]
pub use keys::{PublicKey, SigningKey, TrustedKeys};
pub use manifest::{FORMAT, Manifest, ObjectRecord, PartRecord};
pub use memory::{MemorySink, MemorySource, MemoryTarget};
pub use pipeline::{Compressor, Encryptor, PartWriter, Pipeline};
pub use record::{Attestation, AttestationKind, PruneRecord, Pruned};
pub use restore::PartReader;
pub use secret::Secret;
pub use signature::{Signer, Verifier};
pub use sink::{Capabilities, Locator, Object, PutOptions, Sink, Swept};
pub use source::{Delegated, Facts, Request, RestoreStep, Source};
pub use stream::{ByteStream, CHUNK};
pub use target::{Occupancy, RestoreOptions, Target};
pub use time::Stamp;
pub use transform::{Coding, StockCommand, Transform};

pub use async_trait::async_trait;
