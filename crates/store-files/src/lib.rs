//! Folders as plain tar: uploads, volumes, Loki and Tempo, any path.
//!
//! ```
//! use store_files::{Files, Folder};
//!
//! let _source = Files::new("/srv/uploads").exclude("*.tmp").exclude("cache/**");
//! let _target = Folder::new("/srv/uploads-restored");
//! ```
//!
//! A backup is one part, `files.tar`: sorted, so that the same folder gives the same bytes, and
//! nothing that `tar -x` does not read. It holds files, folders (empty ones too), symbolic links
//! as they are, hard links, modes, owners by number and times to the second, of names of any
//! length and any bytes. It does not hold access lists, extended attributes, holes (they come
//! back as zeros) or fractions of a second; sockets, FIFOs and devices are skipped and counted.
//!
//! **A folder that changes meanwhile.** A file that is gone when its turn comes is counted in the
//! facts (`vanished`), and so is one that was written to while it was read (`changed`: its bytes
//! may be of two moments, cut at the size that it had first). One that got shorter, or that
//! cannot be read, fails the backup. For one moment of everything back up a snapshot.
//!
//! **A hostile archive.** A restore refuses the whole of it for a name that is absolute or has
//! `..`, a duplicate, a hard link to what is not in it, a device, a size told twice differently.
//! Links are made after every file, so nothing is ever written through one. All happens in a
//! hidden folder beside the target, which takes the target's place in one step at the end.

#![cfg(unix)]

mod archive;
mod attributes;
mod blocks;
mod counts;
mod glob;
mod headers;
mod options;
mod place;
mod source;
mod target;
mod tree;
mod unpack;

pub use options::{Files, Folder};

/// What kind of backup this crate writes and takes.
const KIND: &str = "files";

/// The one part.
const PART: &str = "files.tar";

/// Folders within folders, each of which is held open: deeper ones are refused on both ways, so
/// that what was backed up can come back.
const MAX_DEPTH: usize = 500;
