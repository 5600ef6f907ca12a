//! Any text as a configuration: a checked one or one line that says what is wrong.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use backup_cli::Registry;
use backup_cli::config::{Loaded, Options};

/// Knows the types in the box, and makes none: reading a configuration has no side effects.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    fn none<T>(_: &Options) -> backup_core::Result<T> {
        unreachable!("reading a configuration makes nothing")
    }
    let mut registry = Registry::default();
    registry
        .sink("fs", none)
        .source("files", none)
        .target("files", none)
        .source("command", none)
        .target("command", none);
    registry
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let file = Path::new("/nonexistent/lifebelt.toml");
    match Loaded::from_text(text, file, &REGISTRY) {
        Ok(loaded) => drop(format!("{loaded:?}")),
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains('\n') && !said.is_empty(), "{said:?}");
        }
    }
});
