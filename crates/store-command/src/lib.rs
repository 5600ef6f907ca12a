//! What any program writes as a backup, and any program or file as the place it comes back to.
//!
//! ```
//! use std::time::Duration;
//! use store_command::Command;
//!
//! let _source = Command::new(["mysqldump", "--single-transaction", "shop"])
//!     .part("shop.sql")
//!     .magic("-- ")
//!     .min_size(10_000)
//!     .stall_timeout(Duration::from_secs(600))
//!     .restore(["mysql", "shop"]);
//! ```
//!
//! The same in configuration:
//!
//! ```
//! # let source: store_command::Command = toml::from_str(r#"
//! argv = ["mysqldump", "--single-transaction", "shop"]
//! part = "shop.sql"
//! magic = "-- "                  # or "hex:28b52ffd"
//! min_size = 10_000
//! stall_timeout = "10m"
//! restore = ["mysql", "shop"]
//! # "#).unwrap();
//! # assert!(format!("{source:?}").contains("10m"));
//! ```
//!
//! Of a program that writes only to a file, as `talosctl etcd snapshot` does, it is the shell around it that
//! this source runs. `restore` is what `RESTORE.md` then says:
//!
//! ```toml
#![doc = include_str!("../talos.toml")]
//! ```
//!
//! - **No shell** is involved: the words of `argv` reach the program as they are. Who needs a
//!   pipeline writes `["sh", "-c", "set -o pipefail; ..."]` and means it.
//! - **Success is known only at the end.** The exit status joins the end of the stream: a program
//!   that fails after its last byte fails the backup. So does one that is killed, says nothing,
//!   or ends without the bytes that it must end with.
//! - **Nothing stays behind.** A program runs in a process group of its own. Whatever of that
//!   group still lives is killed when the stream ends or is dropped; a process that leaves the
//!   group (`setsid`) is on its own.
//! - **Secrets** belong into `env`, never into `argv`, where `ps` shows them. Values of `env` are
//!   in no error and in no `Debug`; where a program prints one of them on its standard error, the
//!   error shows the variable's name instead.
//!
//! Needs a tokio runtime with I/O and time enabled.

#![cfg(unix)]

mod file;
mod options;
mod source;
mod target;

pub use file::FileTarget;
pub use options::{Command, CommandTarget};

/// What kind of backup this crate writes and takes.
const KIND: &str = "command";
