//! Which settings an index is made with, and which have to wait.

use serde_json::{Map, Value, json};

use crate::schema::entries;

/// The settings of an index: those with which it is made, those that wait until its documents are
/// there, and those that forbid to change it.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) create: Map<String, Value>,
    pub(crate) after: Map<String, Value>,
    pub(crate) blocks: Map<String, Value>,
}

/// What the server says itself of an index, and lets nobody set (`IndexMetadata`,
/// `INDEX_..._SETTING` with `PrivateIndex`; `ResizeSourceIndexSettings`). The flood stage sets the
/// last one, and takes it away again.
const NOT_OURS: [&str; 9] = [
    "index.uuid",
    "index.history.uuid",
    "index.creation_date",
    "index.provided_name",
    "index.version.",
    "index.resize.",
    "index.routing.allocation.initial_recovery.",
    "index.verified_before_close",
    "index.blocks.read_only_allow_delete",
];

/// Copies and refreshes cost while documents are loaded, and pipelines would change them again.
const AFTER: [&str; 5] = [
    "index.number_of_replicas",
    "index.auto_expand_replicas",
    "index.refresh_interval",
    "index.default_pipeline",
    "index.final_pipeline",
];

impl Settings {
    pub(crate) fn split(said: &Value) -> Self {
        let mut settings = Self::default();
        for (name, value) in entries(said) {
            let begins =
                |begin: &&str| name == begin || begin.ends_with('.') && name.starts_with(*begin);
            let place = match &**name {
                _ if NOT_OURS.iter().any(begins) => continue,
                name if AFTER.contains(&name) => &mut settings.after,
                name if name.starts_with("index.blocks.") => &mut settings.blocks,
                _ => &mut settings.create,
            };
            place.insert(name.clone(), value.clone());
        }
        let after = &mut settings.after;
        after.entry("index.refresh_interval").or_insert(Value::Null);
        if after
            .get("index.auto_expand_replicas")
            .is_some_and(|value| value != "false")
        {
            after.remove("index.number_of_replicas");
        }
        for (name, value) in [
            ("index.number_of_replicas", "0"),
            ("index.refresh_interval", "-1"),
        ] {
            settings.create.insert(name.to_owned(), value.into());
        }
        settings
    }

    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.create.get(name).is_some_and(|set| set == value)
    }

    /// For what a template made.
    pub(crate) fn loading(&self) -> Value {
        json!({
            "index.number_of_replicas": "0", "index.refresh_interval": "-1",
            "index.auto_expand_replicas": "false", "index.final_pipeline": "_none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_wait_for_the_documents() {
        let settings = Settings::split(&json!({
            "index.uuid": "u", "index.version.created": "1", "index.number_of_shards": "2",
            "index.number_of_replicas": "1", "index.auto_expand_replicas": "0-1", "index.final_pipeline": "p",
            "index.blocks.write": "true", "index.blocks.read_only_allow_delete": "true",
        }));
        let value = |map: &Map<String, Value>| Value::from(map.clone());
        assert_eq!(
            value(&settings.create),
            json!({"index.number_of_shards": "2", "index.number_of_replicas": "0", "index.refresh_interval": "-1"})
        );
        assert_eq!(
            value(&settings.after),
            json!({"index.auto_expand_replicas": "0-1", "index.final_pipeline": "p", "index.refresh_interval": null})
        );
        assert_eq!(
            value(&settings.blocks),
            json!({"index.blocks.write": "true"})
        );
    }
}
