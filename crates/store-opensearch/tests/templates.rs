//! What templates and pipelines of a cluster must not do to a backup.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod support;

use backup_core::{ErrorKind, MemorySink, RestoreRequest};
use reqwest::Method;
use serde_json::{Value, json};
use support::{
    Cluster, Kind, Once, back_up_watched, backed_up, job, one_clear_line, restore, restores,
    wait_for,
};

/// Makes an index with ten documents.
async fn fill(cluster: &Cluster, index: &str, body: Value) {
    cluster.put(&format!("/{index}"), body).await;
    let lines = (0..10).map(|n| {
        format!("{{\"index\":{{\"_index\":\"{index}\",\"_id\":\"{n}\"}}}}\n{{\"n\" : {n}.0}}\n")
    });
    cluster.bulk(&lines.collect::<String>()).await;
}

/// A template for what begins with `name`, whose indices are so.
async fn template(cluster: &Cluster, name: &str, template: Value, more: Value) {
    let mut body =
        json!({"index_patterns": [format!("{name}*")], "priority": 300, "template": template});
    let more = more.as_object().cloned().unwrap_or_default();
    body.as_object_mut().unwrap().extend(more);
    cluster.put(&format!("/_index_template/{name}"), body).await;
}

async fn add_to_stream(cluster: &Cluster, stream: &str, code: Value) {
    let mut lines = String::new();
    for n in 0..20 {
        let line = json!({"@timestamp": "2026-01-01T00:00:00Z", "n": n, "code": code});
        lines.push_str(&format!(
            "{{\"create\":{{\"_index\":\"{stream}\"}}}}\n{line}\n"
        ));
    }
    cluster.bulk(&lines).await;
}

#[tokio::test]
async fn a_stream_whose_fields_became_others_comes_back() {
    for cluster in Kind::all() {
        let stream = cluster.name("metrics");
        for (kind, code) in [("long", json!(7)), ("keyword", json!("seven"))] {
            let mappings = json!({"properties": {"code": {"type": kind}}});
            let inside = json!({"mappings": mappings, "settings": {"number_of_replicas": 0}});
            template(&cluster, &stream, inside, json!({"data_stream": {}})).await;
            if kind == "keyword" {
                let rollover = format!("/{stream}/_rollover");
                cluster.ask(Method::POST, &rollover, Value::Null).await;
            }
            add_to_stream(&cluster, &stream, code).await;
        }
        let before = cluster.fingerprint().await;
        assert!(
            before.contains(&format!("documents {stream}: 40")),
            "{before}"
        );
        let job = backed_up(&cluster, cluster.source()).await;
        restores(&job, &cluster, &cluster.target(), &before).await;
    }
}

#[tokio::test]
async fn a_stream_whose_template_has_another_type_by_now_comes_back() {
    for cluster in Kind::all() {
        let stream = cluster.name("metrics");
        let typed = |kind: &str| {
            let mappings = json!({"properties": {"n": {"type": kind}}});
            json!({"mappings": mappings, "settings": {"number_of_replicas": 0}})
        };
        let streams = json!({"data_stream": {}});
        template(&cluster, &stream, typed("long"), streams.clone()).await;
        add_to_stream(&cluster, &stream, json!("x")).await;
        template(&cluster, &stream, typed("double"), streams).await;
        let job = backed_up(&cluster, cluster.source()).await;
        restore(&job, &cluster.target(), RestoreRequest::default())
            .await
            .unwrap();
        let after = cluster.fingerprint().await;
        let all = format!("documents {stream}: 20");
        assert!(after.contains(&all), "{after}");
        cluster.wipe().await;
    }
}

#[tokio::test]
async fn a_template_changes_nothing_of_what_comes_back() {
    for cluster in Kind::all() {
        let (orders, leak) = (cluster.name("orders"), cluster.name("leak"));
        let settings = json!({"number_of_replicas": 0, "refresh_interval": "9s"});
        fill(&cluster, &orders, json!({"settings": settings})).await;
        let stain = cluster.name("stain");
        let processors = json!([{"set": {"field": "stained", "value": true}}]);
        cluster
            .put(
                &format!("/_ingest/pipeline/{stain}"),
                json!({"processors": processors}),
            )
            .await;
        let settings = json!({
            "index.final_pipeline": stain, "index.default_pipeline": stain,
            "index.auto_expand_replicas": "0-1", "index.refresh_interval": "3s",
        });
        let inside = json!({"aliases": {leak: {}}, "settings": settings});
        template(&cluster, &orders, inside, Value::Null).await;
        let source = async || {
            let one = format!("/{orders}/_source/7");
            cluster.try_ask(Method::GET, &one, "").await.1
        };
        let (before, written) = (cluster.fingerprint().await, source().await);
        let job = backed_up(&cluster, cluster.source()).await;
        restore(&job, &cluster.target(), RestoreRequest::default())
            .await
            .unwrap();
        assert_eq!(source().await, written);
        cluster.wipe().await;
        restores(&job, &cluster, &cluster.target(), &before).await;
    }
}

#[tokio::test]
async fn a_template_that_would_lose_parts_of_documents_is_refused() {
    for cluster in Kind::all() {
        let lossy = json!({"mappings": {"_source": {"excludes": ["n"]}}});
        let orders = cluster.name("orders");
        fill(&cluster, &orders, json!({})).await;
        let plain = backed_up(&cluster, cluster.source()).await;
        let stream = cluster.name("metrics");
        let streams = json!({"data_stream": {}});
        template(&cluster, &stream, json!({}), streams.clone()).await;
        add_to_stream(&cluster, &stream, json!(1)).await;
        let streaming = backed_up(&cluster, cluster.source()).await;
        template(&cluster, &orders, lossy.clone(), Value::Null).await;
        template(&cluster, &stream, lossy, streams).await;
        for job in [plain, streaming] {
            let target = cluster.target();
            let outcome = restore(&job, &target, RestoreRequest::default()).await;
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
            let line = one_clear_line(&error);
            assert!(line.contains("whole `_source`"), "{line}");
            assert_eq!(cluster.count().await, 0);
        }
        cluster.wipe().await;
    }
}

/// A pipeline of an index is part of every search, and the servers here have none that does anything:
/// one that is missing shows who goes through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_pipeline_of_an_index_has_no_say_in_what_it_holds() {
    for cluster in Kind::all() {
        let (index, pipeline) = (cluster.name("filtered"), cluster.name("few"));
        let path = format!("/_search/pipeline/{pipeline}");
        cluster.put(&path, json!({"request_processors": []})).await;
        let settings = json!({"index.search.default_pipeline": pipeline});
        fill(&cluster, &index, json!({"settings": settings})).await;
        let own = cluster.on(&cluster.url);
        let lose = Once::at_first_part(move || {
            wait_for(async move { own.ask(Method::DELETE, &path, Value::Null).await });
        });
        let sink = MemorySink::new();
        back_up_watched(cluster.source(), &sink, &lose)
            .await
            .unwrap();
        assert!(lose.fired());
        cluster.wipe().await;
        let job = job(cluster.source(), sink).build().unwrap();
        restore(&job, &cluster.target(), RestoreRequest::default())
            .await
            .unwrap();
        for (how, says) in [
            ("", "is not defined"),
            ("&search_pipeline=_none", "\"value\":10,"),
        ] {
            let search = format!("/{index}/_search?size=0{how}");
            let (_, said) = cluster.try_ask(Method::GET, &search, "").await;
            assert!(said.contains(says), "{said}");
        }
        cluster.wipe().await;
    }
}
