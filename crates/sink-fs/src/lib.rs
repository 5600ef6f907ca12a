//! A folder as a place that keeps backups: a disk, a mounted share.
//!
//! ```
//! # use backup_core::{ByteStream, Key, PutOptions, Sink};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> backup_core::Result<()> {
//! # let folder = tempfile::tempdir().map_err(backup_core::Error::from)?;
//! let sink = sink_fs::FsSink::new(folder.path());
//! let key = Key::parse("orders/notes.txt")?;
//! sink.put(&key, ByteStream::from_bytes("kept"), &PutOptions::default()).await?;
//! assert_eq!(sink.stat(&(&key).into()).await?.len, 4);
//! # Ok(()) }
//! ```
//!
//! Object `a/b` is the file `a/b` below the root, readable by its owner only (0600 in folders of
//! 0700), so `cp`, `rsync` and `sha256sum` work on it.
//!
//! - **Durable and atomic.** An object is written to `.tmp` below the root, synced, renamed
//!   without replacing anything, and then every folder from there to the root is synced. A failed
//!   sync discards the file: after one the kernel may have dropped the bytes and yet say yes.
//! - **Symbolic links** below the root are never followed; the root itself may be one.
//! - **Strangers.** Hidden names and the root's `lost+found` are not ours and skipped. Anything
//!   else that cannot be an object (a name that is no [`Key`](backup_core::Key), a link, a
//!   socket) makes `list` and `versions` end in an `Err` that names it, after every object was
//!   delivered. `children` skips it with a warning event, so that a stray file stops a
//!   verification and a prune but no backup.
//! - **File systems.** Needs hard links or `renameat2(RENAME_NOREPLACE)`: ext4, xfs, btrfs, zfs,
//!   tmpfs, NFS, CIFS, vfat and exfat have one of them.

#![cfg(unix)]

mod folder;
mod list;
mod options;
mod sink;
mod temp;

pub use options::FsSink;
