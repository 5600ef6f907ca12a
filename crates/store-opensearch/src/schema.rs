//! What a cluster has besides documents, as the requests that make it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backup_core::settings::percent_encode;
use backup_core::{ByteStream, Error, ErrorKind, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::map::Entry;
use serde_json::{Map, Value, json};

use crate::client::{Call, Client};
use crate::names::Patterns;
use crate::requests::{Request, What};
use crate::settings::{self, Settings};

/// What the mapping of a stream's index says, and nobody may.
pub(crate) const TIMESTAMP: &str = "_data_stream_timestamp";

/// What there is by name.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Names {
    pub(crate) indices: Vec<Named>,
    #[serde(default)]
    pub(crate) aliases: Vec<Named>,
    #[serde(default)]
    pub(crate) data_streams: Vec<Named>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) attributes: Vec<String>,
    /// The stream that an index belongs to.
    pub(crate) data_stream: Option<String>,
}

impl Named {
    /// The name by which patterns mean it: of an index of a stream, the stream's.
    fn known_as(&self) -> &str {
        self.data_stream.as_ref().unwrap_or(&self.name)
    }
}

impl Names {
    pub(crate) async fn of(client: &Client) -> Result<Self> {
        let call = Call::get("/_resolve/index/*?expand_wildcards=all");
        client.ask(&call).await
    }

    /// Indices, but for those of streams, and streams.
    pub(crate) fn all(&self) -> impl Iterator<Item = (What, &str)> {
        let indices = self.indices.iter().filter(|it| it.data_stream.is_none());
        let indices = indices.map(|it| (What::Index, &*it.name));
        let streams = self.data_streams.iter();
        indices.chain(streams.map(|it| (What::Stream, &*it.name)))
    }

    /// The indices that are meant: of a stream, by the stream's name.
    pub(crate) fn choose(&self, patterns: &Patterns) -> Result<Vec<Named>> {
        let known = |name: &str| self.all().any(|(_, known)| known == name);
        if let Some(missing) = patterns.exact().find(|name| !known(name)) {
            return Err(refused(format!(
                "there is no index and no data stream `{missing}`: a name for each, or a pattern with `*`"
            )));
        }
        let meant = |index: &&Named| patterns.choose(index.known_as());
        let chosen: Vec<Named> = self.indices.iter().filter(meant).cloned().collect();
        let closed = |index: &&Named| index.attributes.iter().any(|it| it == "closed");
        if let Some(index) = chosen.iter().find(closed) {
            return Err(refused(format!(
                "index `{}` is closed, and nobody can read it: open it, or leave it out with \"-{}\"",
                index.name,
                index.known_as()
            )));
        }
        match chosen.is_empty() {
            true => Err(refused(
                "no index is meant: there would be nothing in the backup",
            )),
            false => Ok(chosen),
        }
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Refused, message)
}

/// What was learned of an index while its description was written.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) stream: Option<String>,
    pub(crate) shards: u32,
}

/// What has to be said when all documents are there, and of which indices.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    pub(crate) indices: Vec<Index>,
    /// By index or stream.
    settings: BTreeMap<String, Value>,
    blocks: BTreeMap<String, Value>,
    aliases: Vec<Value>,
    /// By stream, of all its indices.
    mappings: BTreeMap<String, Map<String, Value>>,
}

pub(crate) type Shared = Arc<Mutex<Learned>>;

impl Learned {
    /// What makes the streams again, when all their indices are known.
    fn streams(&self) -> Bytes {
        let requests = self.mappings.iter().flat_map(|(stream, mapping)| {
            [
                Request::new(What::Stream, stream, Value::Null),
                Request::new(What::Mapping, stream, mapping.clone().into()),
                Request::new(What::Settings, stream, settings::loading().into()),
            ]
        });
        lines(requests)
    }

    /// Settings, then all aliases in one step, then what forbids to change any more.
    pub(crate) fn finish(&self) -> Bytes {
        let settings = |of: &BTreeMap<String, Value>| -> Vec<Request> {
            let request =
                |(name, body): (&String, &Value)| Request::new(What::Settings, name, body.clone());
            of.iter().map(request).collect()
        };
        let mut requests = settings(&self.settings);
        if !self.aliases.is_empty() {
            let body = json!({"actions": self.aliases});
            requests.push(Request::new(What::Aliases, "", body));
        }
        requests.extend(settings(&self.blocks));
        lines(requests)
    }
}

/// The requests for `chosen` and for what of the cluster `state` names, a few at once in memory.
pub(crate) fn create(
    client: &Arc<Client>,
    chosen: &[Named],
    state: &Patterns,
    learned: &Shared,
) -> ByteStream {
    let cluster = {
        let (client, state) = (Arc::clone(client), state.clone());
        stream::once(async move { cluster(&client, &state).await })
    };
    let (client, last) = (Arc::clone(client), Arc::clone(learned));
    let learned = Arc::clone(learned);
    let indices = stream::iter(paths(chosen)).then(move |(path, indices)| {
        let (client, learned) = (Arc::clone(&client), Arc::clone(&learned));
        async move { describe(&client, &path, &indices, &learned).await }
    });
    let streams = stream::once(async move { Ok(locked(&last).streams()) });
    ByteStream::new(cluster.chain(indices).map_ok(lines).chain(streams))
}

pub(crate) fn locked(learned: &Shared) -> MutexGuard<'_, Learned> {
    learned.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lines(requests: impl IntoIterator<Item = Request>) -> Bytes {
    let lines: Vec<u8> = requests.into_iter().flat_map(|it| it.line()).collect();
    lines.into()
}

/// Paths of several indices each. A first line of more than 4096 bytes is refused
/// (`http.max_initial_line_length`).
fn paths(chosen: &[Named]) -> Vec<(String, Vec<Named>)> {
    let mut paths: Vec<(String, Vec<Named>)> = Vec::new();
    for index in chosen {
        let name = percent_encode(&index.name);
        match paths.last_mut() {
            Some((path, indices)) if path.len() + name.len() < 3000 && indices.len() < 64 => {
                path.push(',');
                path.push_str(&name);
                indices.push(index.clone());
            }
            _ => paths.push((format!("/{name}"), vec![index.clone()])),
        }
    }
    paths
}

/// Scripts, pipelines and templates: what others need first.
async fn cluster(client: &Client, state: &Patterns) -> Result<Vec<Request>> {
    use What::{Component, LegacyTemplate, Pipeline, Script, SearchPipeline, Template};
    let get = async |path: &str| -> Result<Value> {
        Ok(client.find(&Call::get(path)).await?.unwrap_or_default())
    };
    let scripts = get("/_cluster/state/metadata?filter_path=metadata.stored_scripts").await?;
    let mut found = Vec::new();
    for (name, script) in entries(&scripts["metadata"]["stored_scripts"]) {
        found.push(Request::new(Script, name, json!({"script": script})));
    }
    for (what, path) in [
        (Pipeline, "/_ingest/pipeline"),
        (SearchPipeline, "/_search/pipeline"),
        (LegacyTemplate, "/_template?flat_settings=true"),
    ] {
        for (name, body) in entries(&get(path).await?) {
            found.push(Request::new(what, name, body.clone()));
        }
    }
    for (what, path, list, body) in [
        (
            Component,
            "/_component_template",
            "component_templates",
            "component_template",
        ),
        (
            Template,
            "/_index_template",
            "index_templates",
            "index_template",
        ),
    ] {
        for entry in get(path).await?[list].as_array().into_iter().flatten() {
            let name = entry["name"].as_str().unwrap_or_default();
            found.push(Request::new(what, name, entry[body].clone()));
        }
    }
    found.retain(|request| state.choose(&request.name));
    Ok(found)
}

pub(crate) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The request that sets all aliases of `chosen`.
pub(crate) async fn aliases(client: &Client, chosen: &[Named]) -> Result<Bytes> {
    let mut learned = Learned::default();
    for (path, _) in paths(chosen) {
        let call = Call::get(format!("{path}/_alias?expand_wildcards=all"));
        let said: Map<String, Value> = client.ask(&call).await?;
        for (index, said) in &said {
            learned.aliases(index, said);
        }
    }
    Ok(learned.finish())
}

async fn describe(
    client: &Client,
    path: &str,
    indices: &[Named],
    learned: &Shared,
) -> Result<Vec<Request>> {
    let call = Call::get(format!("{path}?flat_settings=true&expand_wildcards=all"));
    let mut said: Map<String, Value> = client.ask(&call).await?;
    let mut requests = Vec::new();
    let mut learned = locked(learned);
    for index in indices {
        let name = &index.name;
        let said = said.remove(name).ok_or_else(|| {
            let why = format!("index `{name}` went away while it was to be backed up");
            Error::new(ErrorKind::Source, why)
        })?;
        requests.extend(learned.index(index, &said)?);
    }
    Ok(requests)
}

impl Learned {
    /// Takes down what the server says of an index, and returns what makes it again, if it belongs
    /// to no stream.
    fn index(&mut self, index: &Named, said: &Value) -> Result<Option<Request>> {
        let name = &index.name;
        if !keeps_source(said) {
            return Err(refused(format!(
                "index `{name}` does not keep the whole `_source` of its documents, so they cannot be read: leave it out \
                 with \"-{}\", or back it up as type opensearch-snapshot",
                index.known_as()
            )));
        }
        let mut settings = Settings::split(&said["settings"]);
        let shards = settings
            .create
            .get("index.number_of_shards")
            .and_then(Value::as_str);
        self.indices.push(Index {
            name: name.clone(),
            stream: index.data_stream.clone(),
            shards: shards.and_then(|text| text.parse().ok()).unwrap_or(1),
        });
        let Some(stream) = &index.data_stream else {
            self.aliases(name, said);
            self.keep(name, &settings);
            let body = json!({"settings": settings.create, "mappings": said["mappings"]});
            return Ok(Some(Request::new(What::Index, name, body)));
        };
        // The last index of a stream is the one that is written to.
        settings.blocks.clear();
        self.keep(stream, &settings);
        let mut mappings = said["mappings"].as_object().cloned().unwrap_or_default();
        mappings.remove(TIMESTAMP);
        if let Some(older) = self.mappings.remove(stream) {
            add_fields(&mut mappings, older);
        }
        self.mappings.insert(stream.clone(), mappings);
        Ok(None)
    }

    fn aliases(&mut self, index: &str, said: &Value) {
        for (alias, how) in entries(&said["aliases"]) {
            let mut add = json!({"index": index, "alias": alias});
            entries(how).for_each(|(key, value)| add[key] = value.clone());
            self.aliases.push(json!({"add": add}));
        }
    }

    fn keep(&mut self, name: &str, settings: &Settings) {
        self.settings
            .insert(name.to_owned(), settings.after.clone().into());
        if !settings.blocks.is_empty() {
            self.blocks
                .insert(name.to_owned(), settings.blocks.clone().into());
        }
    }
}

/// Whether an index, of which the server says this, keeps its documents as they were written.
pub(crate) fn keeps_source(said: &Value) -> bool {
    let source = &said["mappings"]["_source"];
    let all = |of: &str| source[of].as_array().is_none_or(Vec::is_empty);
    source["enabled"] != false
        && all("includes")
        && all("excludes")
        && said["settings"]["index.derived_source.enabled"] != "true"
}

/// Adds to a mapping, or to a field of one, the fields of an older one that it lacks.
pub(crate) fn add_fields(newer: &mut Map<String, Value>, older: Map<String, Value>) {
    for (within, fields) in older {
        let ("properties" | "fields", Value::Object(fields)) = (&*within, fields) else {
            continue;
        };
        let Value::Object(known) = newer.entry(within).or_insert_with(|| json!({})) else {
            continue;
        };
        for (name, field) in fields {
            match known.entry(name) {
                Entry::Vacant(place) => _ = place.insert(field),
                Entry::Occupied(mut known) => match (known.get_mut(), field) {
                    (Value::Object(newer), Value::Object(older)) if kind(newer) == kind(&older) => {
                        add_fields(newer, older);
                    }
                    _ => {}
                },
            }
        }
    }
}

/// The type of a field. An object says it only as long as it has no fields.
fn kind(field: &Map<String, Value>) -> &str {
    let kind = field.get("type").and_then(Value::as_str);
    kind.unwrap_or("object")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, stream: Option<&str>, attribute: &str) -> Named {
        Named {
            name: name.to_owned(),
            attributes: vec![attribute.to_owned()],
            data_stream: stream.map(str::to_owned),
        }
    }

    #[test]
    fn nothing_is_left_out_in_silence() {
        let names = Names {
            indices: vec![
                named("a", None, "open"),
                named("shut", None, "closed"),
                named(".ds-s-1", Some("s"), "open"),
                named(".own", None, "open"),
            ],
            data_streams: vec![named("s", None, "")],
            ..Names::default()
        };
        let choose = |patterns: &[&str]| names.choose(&Patterns::new(patterns.iter().copied()));
        let chosen = choose(&["-shut"]).unwrap();
        let chosen: Vec<_> = chosen.iter().map(|index| &*index.name).collect();
        assert_eq!(chosen, ["a", ".ds-s-1"]);
        for (patterns, why) in [
            (&["a", "b"][..], "no data stream `b`"),
            (&["x*"], "nothing in the backup"),
            (&[], "`shut` is closed"),
        ] {
            let error = choose(patterns).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn an_index_without_its_documents_is_refused() {
        for mappings in [
            json!({"_source": {"enabled": false}}),
            json!({"_source": {"excludes": ["a"]}}),
        ] {
            let said = json!({"mappings": mappings, "settings": {}, "aliases": {}});
            let error = Learned::default()
                .index(&named("a", None, ""), &said)
                .unwrap_err();
            assert!(error.to_string().contains("whole `_source`"), "{error}");
        }
    }

    #[test]
    fn a_stream_has_the_fields_of_all_its_indices_as_the_newest_has_them() {
        let mut learned = Learned::default();
        for (name, mappings) in [
            (
                ".ds-s-1",
                json!({"dynamic": "false", "_data_stream_timestamp": {"enabled": true}, "properties": {
                    "code": {"type": "long"},
                    "gone": {"type": "date"},
                    "text": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
                    "o": {"properties": {"a": {"type": "long"}, "b": {"type": "long"}}},
                    "was object": {"properties": {"a": {"type": "long"}}},
                    "was empty": {"type": "object"},
                }}),
            ),
            (".ds-s-2", json!({})),
            (
                ".ds-s-3",
                json!({"properties": {
                    "code": {"type": "keyword"},
                    "text": {"type": "text"},
                    "o": {"properties": {"a": {"type": "keyword"}}},
                    "was object": {"type": "keyword"},
                    "was empty": {"properties": {"a": {"type": "long"}}},
                }}),
            ),
        ] {
            let said = json!({"mappings": mappings, "settings": {}, "aliases": {}});
            let request = learned.index(&named(name, Some("s"), ""), &said);
            assert_eq!(request.unwrap(), None);
        }
        let lines = String::from_utf8(learned.streams().to_vec()).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        let mapping: Value =
            serde_json::from_str(lines[1].strip_prefix("PUT /s/_mapping ").unwrap()).unwrap();
        assert_eq!(
            mapping,
            json!({"properties": {
                "code": {"type": "keyword"},
                "gone": {"type": "date"},
                "text": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
                "o": {"properties": {"a": {"type": "keyword"}, "b": {"type": "long"}}},
                "was object": {"type": "keyword"},
                "was empty": {"properties": {"a": {"type": "long"}}},
            }})
        );
        assert!(lines[0].starts_with("PUT /_data_stream/s "));
        assert!(lines[2].starts_with("PUT /s/_settings "));
    }
}
