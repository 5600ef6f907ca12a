//! What the tests put into a cluster, and all that a client can see of it afterwards.

use std::collections::BTreeMap;
use std::fmt::Write;

use backup_core::testing::noise;
use reqwest::Method;
use serde_json::{Value, json};

use super::Cluster;

impl Cluster {
    /// Everything that can be backed up, and three megabytes.
    pub(crate) async fn seed(&self) -> String {
        self.seed_with(3000).await
    }

    /// The same with so many documents of a kilobyte.
    pub(crate) async fn seed_with(&self, bulk: u32) -> String {
        let seed = self.seeds();
        self.seed_state(&seed, &["scripts", "search_pipelines", "components"])
            .await;
        self.put(&format!("/{}", self.name("empty")), plain()).await;
        self.fill(&seed, bulk).await;
        self.seed_stream(&seed).await;
        self.fingerprint().await
    }

    /// One index with everything in it, and so many documents of a kilobyte: a cluster takes its
    /// time for each thing that it makes.
    pub(crate) async fn seed_few(&self, bulk: u32) -> String {
        self.fill(&self.seeds(), bulk).await;
        self.fingerprint().await
    }

    async fn fill(&self, seed: &Value, bulk: u32) {
        self.seed_state(seed, &["pipelines"]).await;
        self.put(&format!("/{}", self.name("orders")), seed["orders"].clone())
            .await;
        let mut lines = String::new();
        for n in 0..60 {
            let place = json!({"_index": self.name("orders"), "_id": format!("o {n}\"ü"), "routing": format!("r{}", n % 7)});
            let order = json!({
                "n": n, "name": format!("order \n {n}"), "tags": [], "where": {"lat": 1.5, "lon": n},
                "lines": [{"sku": "a", "price": 1.25}, {"sku": format!("b{n}"), "price": n}],
                "parent": "order", "not mapped": {"deep": [null, true, {"x": "\u{1F9F0}"}]},
            });
            writeln!(lines, "{{\"index\":{place}}}\n{order}").unwrap();
        }
        if bulk > 0 {
            self.put(&format!("/{}", self.name("bulk")), plain()).await;
        }
        for n in 0..bulk {
            let place = json!({"_index": self.name("bulk"), "_id": n.to_string()});
            // A kilobyte that compresses badly.
            let text = noise(500, n.into());
            writeln!(
                lines,
                "{{\"index\":{place}}}\n{{\"n\":{n},\"text\":\"{text:x}\"}}"
            )
            .unwrap();
        }
        self.bulk(&lines).await;
    }

    fn seeds(&self) -> Value {
        let text = include_str!("seed.json").replace("PREFIX", &self.prefix);
        serde_json::from_str(&text).unwrap()
    }

    async fn seed_state(&self, seed: &Value, kinds: &[&str]) {
        for (kind, path) in [
            ("scripts", "_scripts"),
            ("pipelines", "_ingest/pipeline"),
            ("search_pipelines", "_search/pipeline"),
            ("components", "_component_template"),
        ] {
            for (own, body) in seed[kind].as_object().unwrap() {
                if kinds.contains(&kind) {
                    self.put(&format!("/{path}/{}", self.name(own)), body.clone())
                        .await;
                }
            }
        }
    }

    /// A stream of two indices.
    async fn seed_stream(&self, seed: &Value) {
        let name = self.name("logs");
        self.put(&format!("/_index_template/{name}"), seed["logs"].clone())
            .await;
        self.put(&format!("/_data_stream/{name}"), Value::Null)
            .await;
        for generation in 1..=2 {
            let mut lines = String::new();
            for n in 0..40 {
                let time = format!("2026-01-0{generation}T00:00:{n:02}Z");
                let line = json!({"@timestamp": time, "host": "h", "extra": n});
                writeln!(lines, "{{\"create\":{{\"_index\":\"{name}\"}}}}\n{line}").unwrap();
            }
            self.bulk(&lines).await;
            if generation == 1 {
                let rollover = format!("/{name}/_rollover");
                self.ask(Method::POST, &rollover, Value::Null).await;
            }
        }
    }

    /// Everything that a client can see of what is here, but for which index of a stream has a
    /// document.
    pub(crate) async fn fingerprint(&self) -> String {
        let own = format!("{}*", self.prefix);
        let mut told = BTreeMap::new();
        let indices = self
            .get(&format!("/{own}?flat_settings=true&expand_wildcards=all"))
            .await;
        for (index, said) in indices.as_object().unwrap() {
            let mut said = said.clone();
            let private = [
                "uuid",
                "history.uuid",
                "creation_date",
                "provided_name",
                "version.created",
            ];
            let settings = said["settings"].as_object_mut().unwrap();
            settings.retain(|name, _| !private.contains(&name.trim_start_matches("index.")));
            let name = said["data_stream"].as_str().unwrap_or(index).to_owned();
            // Of a stream, those of the last one stay.
            told.insert(format!("index {name}"), said);
            self.ask(Method::POST, &format!("/{name}/_refresh"), Value::Null)
                .await;
            let all = json!({"size": 10_000, "sort": ["_doc"], "track_total_hits": true});
            let found = self
                .ask(Method::POST, &format!("/{name}/_search"), all)
                .await;
            let hits = found["hits"]["hits"].as_array().unwrap();
            assert_eq!(found["hits"]["total"]["value"], hits.len());
            for hit in hits {
                let what = json!([hit["_routing"], hit["_source"]]);
                told.insert(format!("document {name} {}", hit["_id"]), what);
            }
            told.insert(format!("documents {name}"), hits.len().into());
        }
        for path in ["_ingest/pipeline", "_search/pipeline", "_template"] {
            let (_, said) = self
                .try_ask(Method::GET, &format!("/{path}/{own}"), "")
                .await;
            told.insert(path.to_owned(), serde_json::from_str(&said).unwrap());
        }
        for (path, list) in [
            ("_component_template", "component_templates"),
            ("_index_template", "index_templates"),
        ] {
            let (_, said) = self
                .try_ask(Method::GET, &format!("/{path}/{own}"), "")
                .await;
            let said: Value = serde_json::from_str(&said).unwrap();
            told.insert(path.to_owned(), said[list].clone());
        }
        let state = self
            .get("/_cluster/state/metadata?filter_path=metadata.stored_scripts")
            .await;
        for (name, script) in state["metadata"]["stored_scripts"]
            .as_object()
            .into_iter()
            .flatten()
        {
            if name.starts_with(&self.prefix) {
                told.insert(format!("script {name}"), script.clone());
            }
        }
        let mut text = String::new();
        for (name, what) in told {
            writeln!(text, "{name}: {what}").unwrap();
        }
        text
    }
}

fn plain() -> Value {
    json!({"settings": {"number_of_shards": 1, "number_of_replicas": 0}})
}
