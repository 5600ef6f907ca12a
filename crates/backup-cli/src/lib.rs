//! The `lifebelt` program as a library, for programs with stores of their own.
//!
//! ```no_run
//! # fn kafka(_: &backup_cli::config::Options)
//! #     -> backup_core::Result<Box<dyn backup_core::Source>> { unimplemented!() }
//! fn main() -> std::process::ExitCode {
//!     backup_cli::main(|registry| {
//!         registry.source("kafka", kafka);
//!     })
//! }
//! ```
//!
//! Such a program has every verb of `lifebelt`, and knows `source = { type = "kafka", .. }`.

mod app;
mod args;
mod builtin;
pub mod config;
mod context;
mod exit;
mod logging;
mod output;
mod place;
mod progress;
mod registry;
mod signals;
mod verbs;

use std::process::ExitCode;

pub use registry::Registry;

/// Runs the program with the arguments of this process, with the stores in the box and what
/// `register` adds. Return its value from `main`.
///
/// It sets the panic hook, listens to SIGINT and SIGTERM, and starts a `tracing` subscriber unless
/// there is one.
pub fn main(register: impl FnOnce(&mut Registry)) -> ExitCode {
    let mut registry = Registry::standard();
    register(&mut registry);
    app::run(std::env::args_os(), &registry)
}
