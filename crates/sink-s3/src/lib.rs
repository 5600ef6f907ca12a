//! An S3 bucket as a place that keeps backups: AWS, MinIO and whatever else speaks S3.
//!
//! ```
//! use sink_s3::{Lock, S3Sink};
//! # fn main() -> backup_core::Result<()> {
//! let sink = S3Sink::builder("s3://backups/orders")
//!     .endpoint("http://127.0.0.1:9000")
//!     .credentials("writer", "correct horse battery staple")
//!     .lock(Lock::compliance(30))
//!     .build()?;
//! assert_eq!(sink.to_string(), "s3://backups/orders");
//! # Ok(()) }
//! ```
//!
//! Object `a/b` of `s3://bucket/prefix` is the object `prefix/a/b`, so `aws s3 cp` works on it.
//!
//! - **Atomic, once.** What fits into one part goes in one conditional request
//!   (`If-None-Match: *`), anything longer in a multipart upload that is completed on the same
//!   condition. A failed or dropped put aborts its upload; what a killed process left is taken by
//!   [`sweep`](backup_core::Sink::sweep). A repeated request that meets an object of its own put
//!   has succeeded: each put leaves a random `x-amz-meta-lifebelt-put`.
//! - **Checked.** Every part is signed with its SHA-256 and carries a checksum that the server
//!   verifies; after each put a `HEAD` compares length, checksum, lock, encryption and storage
//!   class.
//! - **Locked.** With [`S3Options::lock`], or `retain_until` of a put, objects are under Object
//!   Lock. A lock protects a *version*: a thief can still hide it behind a delete marker or a
//!   newer version, and [`versions`](backup_core::Sink::versions) still shows it.
//! - **Given up.** A put that is dropped while its last request is on its way may leave its object,
//!   for as long as it is locked: without a manifest, so that a sweep takes it.
//! - **Deleted for good.** A delete names a version; it never leaves a delete marker.
//! - **Strangers.** A key below the prefix that is no [`Key`](backup_core::Key) makes `list` and
//!   `versions` end in an `Err` that names it, after every object was delivered. `children` skips
//!   it with a warning event. Empty objects that end in `/`, which consoles make, are skipped.
//! - **Memory.** A put holds three parts: one that fills and two on their way.
//! - **TLS** is rustls with the roots of the system and of [`S3Options::ca_file`]. Plain `http` only goes to this machine unless
//!   [`S3Options::allow_http`] says otherwise. No redirect is followed.
//!
//! A writer needs `s3:PutObject`, `s3:PutObjectRetention`, `s3:GetObject`,
//! `s3:GetObjectRetention`, `s3:ListBucket`, `s3:AbortMultipartUpload` and
//! `s3:ListBucketMultipartUploads`; with versions `s3:GetObjectVersion` and
//! `s3:ListBucketVersions`. A pruner needs `s3:DeleteObject` and `s3:DeleteObjectVersion` besides,
//! and `s3:GetObjectLegalHold`, without which AWS does not tell what holds a version.
//! `policies/README.md` of this crate has a policy for each of them.

mod answer;
mod body;
mod client;
mod connect;
mod credentials;
mod encryption;
mod examine;
mod failure;
mod list;
mod lock;
mod multipart;
mod options;
mod part;
mod profile;
mod put;
mod sink;
mod time;

pub use encryption::Encryption;
pub use lock::{Lock, LockMode};
pub use options::S3Options;
pub use part::Checksum;
pub use sink::S3Sink;
