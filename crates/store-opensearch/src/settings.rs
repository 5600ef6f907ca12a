//! Which settings an index is made with, and which have to wait.

use serde_json::{Map, Value};

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
const NOT_OURS: [&str; 10] = [
    "index.uuid",
    "index.history.uuid",
    "index.creation_date",
    "index.provided_name",
    "index.version.",
    "index.remote_store.",
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
        for name in AFTER {
            // What the index does not say, a template must not say for it.
            after.entry(name).or_insert(Value::Null);
        }
        let expands = after.get("index.auto_expand_replicas");
        if expands.is_some_and(|to| !to.is_null() && to != "false") {
            after.remove("index.number_of_replicas");
        }
        settings.create.extend(loading());
        settings
    }
}

/// How an index is while its documents are loaded, whatever a template says.
pub(crate) fn loading() -> Map<String, Value> {
    let settings = [
        ("index.number_of_replicas", "0"),
        ("index.auto_expand_replicas", "false"),
        ("index.refresh_interval", "-1"),
        ("index.final_pipeline", "_none"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.into()));
    settings.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_wait_for_the_documents() {
        let settings = Settings::split(&json!({
            "index.uuid": "u", "index.version.created": "1", "index.number_of_shards": "2",
            "index.number_of_replicas": "1", "index.auto_expand_replicas": "0-1", "index.final_pipeline": "p",
            "index.blocks.write": "true", "index.blocks.read_only_allow_delete": "true",
            "index.remote_store.enabled": "true",
        }));
        let value = |map: &Map<String, Value>| Value::from(map.clone());
        assert_eq!(
            value(&settings.create),
            json!({
                "index.number_of_shards": "2", "index.number_of_replicas": "0", "index.refresh_interval": "-1",
                "index.auto_expand_replicas": "false", "index.final_pipeline": "_none",
            })
        );
        assert_eq!(
            value(&settings.after),
            json!({
                "index.auto_expand_replicas": "0-1", "index.final_pipeline": "p",
                "index.refresh_interval": null, "index.default_pipeline": null,
            })
        );
        assert_eq!(
            value(&settings.blocks),
            json!({"index.blocks.write": "true"})
        );
    }
}
