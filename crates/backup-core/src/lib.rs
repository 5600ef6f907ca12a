//! Traits, pipeline, stored format and retention of the Lifebelt backup library.
//!
//! ```text
//!            ┌──────────────────────── Job::run ────────────────────────┐
//!  Source ──▶│ SHA-256 ─▶ compress ─▶ encrypt ─▶ SHA-256 ─┬─▶ Sink      │  and last, in each sink:
//!            │                                            └─▶ Sink      │  the signed manifest
//!            └──────────────────────────────────────────────────────────┘
//!            ┌────────────────────── Job::restore ──────────────────────┐
//!  Target ◀──│ SHA-256 ◀─ decompress ◀─ decrypt ◀─ SHA-256 ◀─── Sink    │
//!            └──────────────────────────────────────────────────────────┘
//! ```
//!
//! A source is read once for all sinks. A backup exists in a sink once its [`Manifest`] does, and
//! that is written last: whatever fails before leaves nothing that looks like a backup.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> backup_core::Result<()> {
//! use backup_core::{
//!     Job, MemorySink, MemorySource, MemoryTarget, Pipeline, RestoreRequest, RunOptions, Status,
//! };
//!
//! let job = Job::builder("orders")
//!     .source(MemorySource::new([("orders.csv", "7,anvil\n")]))
//!     .pipeline(Pipeline::unencrypted())
//!     .sink("here", MemorySink::new())
//!     .sink("there", MemorySink::new())
//!     .build()?;
//! let report = job.run(RunOptions::default().label("pre-migration")).await?;
//! assert_eq!(report.status(), Status::Complete);
//! for copy in job.verify(&report.id, None).await? {
//!     assert!(copy.problems.is_empty());
//! }
//!
//! let backup = job.find("pre-migration").await?;
//! let target = MemoryTarget::new();
//! job.restore(&backup.manifest.id, &target, RestoreRequest::default()).await?;
//! assert_eq!(target.parts()["orders.csv"], "7,anvil\n");
//! # Ok(()) }
//! ```
//!
//! # Cancel safety
//!
//! Every future here may be dropped at any point.
//!
//! - [`Job::run`], before its commit: the source's future is dropped, and with it its children and
//!   snapshots; unfinished puts are given up; nothing is visible. In the commit: each sink has the
//!   backup whole or does not show it.
//! - [`Job::start`] gives a [`Handle`]. Dropping that cancels nothing; [`Handle::cancel`] stops the
//!   run, or lets it end if its commit has begun.
//! - [`Sink::put`]: nothing is visible at the key. [`ByteStream::consume`] keeps that promise for
//!   sinks and targets that write on a thread.
//! - [`Job::restore`]: the target is as it was, if it
//!   [publishes atomically](Target::publishes_atomically).
//! - [`Job::prune`]: what was recorded and not yet deleted is a backup still, or an orphan that the
//!   next sweep takes.
//!
//! What was dropped may still be undoing what it began on a server. [`settled`] waits for that: call it
//! before your runtime ends, with a time limit.
//!
//! A process that is killed leaves what a dropped run leaves, and objects without a manifest that
//! the next sweep takes.
//!
//! # Memory
//!
//! [`Job::memory_bound`] is the most that a run takes, whatever the size of the data: every pipe
//! holds eight chunks of at most [`CHUNK`] bytes, a stage what [`Transform::memory`] says, a put
//! what [`Capabilities::put_memory`] says, for as many parts as [`Source::parts_at_once`] says. A
//! slow sink slows the run down; it never fills memory or disk.
//!
//! Codecs run on threads of the pipeline ([`Pipeline::threads`]), not on those of the runtime. A
//! tokio runtime with time enabled is needed; which flavour does not matter.
//!
//! # Where to look
//!
//! - **You write a plugin**: [`Source`], [`Target`], [`Sink`] or [`Transform`], whose
//!   documentation is the contract; [`PartWriter`], [`PartReader`] and [`ByteStream`]; [`Error`];
//!   [`undo`] for a `Drop` that has to ask a server, [`blocking`] and [`finish`]; [`settings`].
//!   The feature `testing` has the kit that tests every sentence of it, and things that fail on
//!   purpose. [`MemorySource`], [`MemorySink`] and [`MemoryTarget`] are the shortest examples.
//! - **You embed backups in a service**: [`Job`], [`Pipeline`], [`retention`], [`Observer`] for
//!   progress and metrics, [`Claims`] where several instances share a schedule, [`Clock`] for
//!   tests.
//! - **You operate them**: the `lifebelt` program, `README.md`; `FORMAT.md` for what lies in a sink.

mod boxed;
mod catalog;
mod chain;
mod check;
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
mod original;
mod patience;
mod pipeline;
#[cfg(all(feature = "process", unix))]
pub mod process;
mod recipe;
mod record;
mod restore;
pub mod retention;
mod secret;
pub mod settings;
mod signature;
mod sink;
mod source;
mod space;
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
pub use check::{Check, Health};
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
pub use space::free_space;
pub use stream::{ByteStream, CHUNK};
pub use target::{Occupancy, RestoreOptions, Target};
pub use task::{blocking, finish, settled, undo};
pub use time::Stamp;
pub use transform::{Coding, StockCommand, Transform};

pub use async_trait::async_trait;
