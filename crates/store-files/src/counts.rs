//! What a backup tells about itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::Facts;
use serde_json::Value;

/// How many names the facts give for each thing that was left out.
const NAMED: usize = 10;

/// What was counted. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) excluded: u64,
    /// `vanished`, `changed` and `skipped`, with the first names of each.
    odd: BTreeMap<&'static str, (u64, Vec<String>)>,
}

impl Counts {
    pub(crate) fn update(&self, change: impl FnOnce(&mut Counted)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn odd(&self, what: &'static str, path: &[u8]) {
        self.update(|counted| {
            let (count, names) = counted.odd.entry(what).or_default();
            *count += 1;
            if names.len() < NAMED {
                names.push(show(path));
            }
        });
    }

    /// `entries`, `bytes`, and where there are any `excluded`, `vanished`, `changed`, `skipped`
    /// and the first names of the last three (`skipped_names`).
    pub(crate) fn facts(&self) -> Facts {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut facts = Facts::new()
            .with("entries", counted.entries)
            .with("bytes", counted.bytes);
        if counted.excluded > 0 {
            facts = facts.with("excluded", counted.excluded);
        }
        for (what, (count, names)) in &counted.odd {
            let names: Value = names.clone().into();
            facts = facts
                .with(what, *count)
                .with(&format!("{what}_names"), names);
        }
        facts
    }
}

/// Any bytes as text for people.
pub(crate) fn show(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}
