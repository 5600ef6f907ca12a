//! A cluster by its instructions: requests and documents that `curl` sends.

use std::process::Command;

use backup_core::testing::service;
use lifebelt_tests::{Keys, job};
use serde_json::{Value, json};
use store_opensearch::{OpenSearch, OpenSearchSnapshot};

use super::Found;

/// What a server says to `curl`.
fn ask(method: &str, url: &str, body: &str) -> Value {
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "-X",
        method,
        "-H",
        "content-type: application/json",
        url,
    ]);
    if !body.is_empty() {
        curl.args(["--data-binary", body]);
    }
    let said = curl.output().unwrap();
    serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{method} {url}: {e}: {said:?}"))
}

/// Everything of `own` that a client can see, as text.
fn told(url: &str, own: &str) -> String {
    ask("POST", &format!("{url}/{own}*/_refresh"), "");
    let mut told = Vec::new();
    for name in ["plain", "logs"] {
        let all = r#"{"size":10000,"sort":["_doc"]}"#;
        let found = ask("POST", &format!("{url}/{own}{name}/_search"), all);
        let hits = found["hits"]["hits"].as_array().unwrap();
        let hits = hits
            .iter()
            .map(|hit| json!([name, hit["_id"], hit["_routing"], hit["_source"]]).to_string());
        told.extend(hits);
        let index = ask("GET", &format!("{url}/{own}{name}?flat_settings=true"), "");
        let (_, index) = index.as_object().unwrap().iter().next().unwrap();
        let setting = |of: &str| index["settings"][of].clone();
        let settings = [
            "index.number_of_replicas",
            "index.refresh_interval",
            "index.default_pipeline",
        ]
        .map(setting);
        told.push(json!([name, index["mappings"], index["aliases"], settings]).to_string());
    }
    told.sort();
    told.join("\n")
}

#[tokio::test]
async fn a_cluster_gets_back_what_its_instructions_send() {
    for variable in ["LIFEBELT_OPENSEARCH_URL", "LIFEBELT_OPENSEARCH2_URL"] {
        let Some(url) = service(variable) else {
            continue;
        };
        let own = format!("stock-{}-", std::process::id());
        let wipe = || {
            for path in ["_data_stream", "_index_template", "_ingest/pipeline"] {
                ask("DELETE", &format!("{url}/{path}/{own}*"), "");
            }
            ask("DELETE", &format!("{url}/{own}*"), "");
        };
        // A pipeline that would add a second tag, were it run again.
        let pipeline = json!({"processors": [{"append": {"field": "tags", "value": ["once"], "allow_duplicates": true}}]});
        ask(
            "PUT",
            &format!("{url}/_ingest/pipeline/{own}tag"),
            &pipeline.to_string(),
        );
        let template = json!({"index_patterns": [format!("{own}logs*")], "data_stream": {}, "template": {"settings": {"number_of_replicas": 0}}});
        ask(
            "PUT",
            &format!("{url}/_index_template/{own}logs"),
            &template.to_string(),
        );
        ask("PUT", &format!("{url}/_data_stream/{own}logs"), "");
        let plain = json!({
            "settings": {"number_of_shards": 2, "number_of_replicas": 0, "default_pipeline": format!("{own}tag"), "refresh_interval": "9s"},
            "mappings": {"properties": {"it's": {"type": "keyword"}, "n": {"type": "nested"}}},
            "aliases": {format!("{own}now"): {"filter": {"term": {"it's": "$HOME `x` \\ \"y\""}}}},
        });
        ask("PUT", &format!("{url}/{own}plain"), &plain.to_string());
        let mut lines = String::new();
        for n in 0..2500 {
            let place = json!({"index": {"_index": format!("{own}plain"), "_id": n.to_string(), "routing": format!("r{}", n % 5)}});
            lines += &format!(
                "{place}\n{}\n",
                json!({"it's": "$HOME `x` \\ \"y\"", "n": [{"a": n}]})
            );
        }
        for n in 0..10 {
            let place = json!({"create": {"_index": format!("{own}logs")}});
            lines += &format!(
                "{place}\n{}\n",
                json!({"@timestamp": format!("2026-01-01T00:00:0{n}Z")})
            );
        }
        let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
        let file = work.path().join("lines");
        std::fs::write(&file, lines).unwrap();
        let said = ask(
            "POST",
            &format!("{url}/_bulk?refresh=true"),
            &format!("@{}", file.display()),
        );
        assert_eq!(said["errors"], false, "{said}");
        let before = told(&url, &own);
        assert!(before.lines().count() > 2500 && before.contains("once"));

        let names = format!("{own}*");
        let source = OpenSearch::from_url(&url)
            .unwrap()
            .indices([&names])
            .state([&names]);
        let job = job("search", &keys, work.path()).source(source);
        let found = Found::of(job, &keys, work.path()).await.set("TARGET", &url);
        // Over indices that are there it does not go.
        assert!(found.restored().is_err());
        assert_eq!(told(&url, &own), before);
        wipe();
        found.restores();
        assert_eq!(told(&url, &own), before, "{variable}");
        wipe();
        // A document that the server refuses is noticed, though curl says 200.
        ask("PUT", &format!("{url}/_index_template/{own}closed"), &json!({
            "index_patterns": [format!("{own}plain")], "template": {"settings": {"index.blocks.write": true}},
        }).to_string());
        let said = found.restored().expect_err("documents were refused");
        assert!(
            said.contains("cluster_block_exception") || said.contains("blocked by"),
            "{said}"
        );
        wipe();
    }
}

#[tokio::test]
async fn a_cluster_restores_the_snapshot_that_its_instructions_lay_down() {
    for name in ["LIFEBELT_OPENSEARCH", "LIFEBELT_OPENSEARCH2"] {
        let variable = |of| service(&format!("{name}_{of}"));
        let (Some(url), Some(folder)) = (variable("URL"), variable("REPOSITORIES")) else {
            continue;
        };
        let index = format!("stock-snapshot-{}", std::process::id());
        let settings = json!({
            "settings": {"number_of_shards": 2, "number_of_replicas": 0},
            "mappings": {"_source": {"enabled": false}}, "aliases": {format!("{index}-now"): {}},
        });
        ask("PUT", &format!("{url}/{index}"), &settings.to_string());
        ask(
            "PUT",
            &format!("{url}/{index}/_doc/1?refresh=true"),
            r#"{"a":"found"}"#,
        );
        let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
        let source = OpenSearchSnapshot::new(&url, &folder)
            .unwrap()
            .indices([&index]);
        let job = job("search", &keys, work.path()).source(source);
        let place = tempfile::tempdir_in(&folder).unwrap();
        let found = Found::of(job, &keys, work.path()).await;
        let found = found.set("TARGET", place.path().display());
        let no_url = found
            .restored()
            .expect_err("nobody said where the cluster is");
        assert!(no_url.contains("the URL of the cluster"), "{no_url}");
        let found = found.set("OPENSEARCH_URL", &url);
        assert!(found.restored().is_err(), "the index is there");
        ask("DELETE", &format!("{url}/_snapshot/lifebelt-restore"), "");
        ask("DELETE", &format!("{url}/{index}"), "");
        found.restores();
        let query = r#"{"query":{"match":{"a":"found"}}}"#;
        let hits = ask("POST", &format!("{url}/{index}-now/_search"), query);
        assert_eq!(hits["hits"]["total"]["value"], 1, "{hits}");
        ask("DELETE", &format!("{url}/{index}"), "");
    }
}

#[tokio::test]
async fn a_cluster_restores_by_its_instructions_the_snapshot_that_it_kept() {
    for name in ["LIFEBELT_OPENSEARCH", "LIFEBELT_OPENSEARCH2"] {
        let variable = |of| service(&format!("{name}_{of}"));
        let (Some(url), Some(folder)) = (variable("URL"), variable("REPOSITORIES")) else {
            continue;
        };
        let index = format!("stock-kept-{}", std::process::id());
        let settings = json!({
            "settings": {"number_of_shards": 2, "number_of_replicas": 0},
            "aliases": {format!("{index}-now"): {}},
        });
        ask("PUT", &format!("{url}/{index}"), &settings.to_string());
        let document = format!("{url}/{index}/_doc/1?refresh=true");
        ask("PUT", &document, r#"{"a":"found"}"#);
        let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
        let repository = tempfile::tempdir_in(&folder).unwrap();
        let location = repository.path().to_str().unwrap();
        let source = OpenSearchSnapshot::kept(&url, &index)
            .unwrap()
            .register("fs", [("location", location)])
            .unencrypted(true)
            .indices([&index]);
        let job = job("search", &keys, work.path()).source(source);
        let found = Found::of(job, &keys, work.path()).await.set("TARGET", &url);
        assert!(found.restored().is_err(), "the index is there");
        ask("DELETE", &format!("{url}/{index}"), "");
        found.restores();
        let query = r#"{"query":{"match":{"a":"found"}}}"#;
        let hits = ask("POST", &format!("{url}/{index}-now/_search"), query);
        assert_eq!(hits["hits"]["total"]["value"], 1, "{hits}");
        for path in [
            &index,
            &format!("_snapshot/{index}/*"),
            &format!("_snapshot/{index}"),
        ] {
            ask("DELETE", &format!("{url}/{path}"), "");
        }
    }
}
