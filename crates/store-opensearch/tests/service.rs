//! What only the real servers can show.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod support;

use backup_core::{ErrorKind, MemorySink, RestoreOptions, RestoreRequest};
use reqwest::Method;
use serde_json::{Value, json};
use store_opensearch::{Aliases, Conflict, OpenSearch};
use support::{
    Cluster, Kind, Once, back_up, back_up_watched, backed_up, job, one_clear_line, restore,
    restores, wait_for,
};

fn anything() -> RestoreRequest {
    RestoreRequest::default()
}

fn option(name: &str, value: Value) -> RestoreRequest {
    let mut options = RestoreOptions::default();
    options.extra.insert(name.to_owned(), value);
    RestoreRequest::default().options(options)
}

#[tokio::test]
async fn everything_comes_back_and_the_facts_say_what_it_is() {
    for cluster in Kind::all() {
        let before = cluster.seed().await;
        assert!(
            before.contains("stamped") && before.contains("nested"),
            "{before}"
        );
        let sink = MemorySink::new();
        let report = back_up(cluster.source().parallel(4), &sink).await.unwrap();
        let job = job(cluster.source(), sink).build().unwrap();
        let backup = job.find(report.id.as_str()).await.unwrap();
        let facts = &backup.manifest.facts;
        let indices = facts.get("indices").unwrap();
        assert_eq!(
            indices[cluster.name("orders")],
            json!({"documents": 60, "shards": 3})
        );
        let stream = format!(".ds-{}-000002", cluster.name("logs"));
        assert_eq!(
            indices[stream],
            json!({"documents": 40, "shards": 2, "stream": cluster.name("logs")})
        );
        assert_eq!(facts.get("documents").unwrap(), 60 + 3000 + 80);
        assert_eq!(facts.get("server").unwrap(), "opensearch");
        let parts: Vec<&str> = backup
            .manifest
            .parts
            .iter()
            .map(|part| &*part.name)
            .collect();
        assert_eq!(
            (parts[0], *parts.last().unwrap(), parts.len()),
            ("create.requests", "finish.requests", 11)
        );

        cluster.wipe().await;
        restores(&job, &cluster, &cluster.target(), &before).await;
        assert!(cluster.points().await.is_empty());
    }
}

#[tokio::test]
async fn what_an_older_version_had_comes_back_in_a_newer_one() {
    let (Some(from), Some(to)) = (Kind::V2.at_hand(), Kind::V3.at_hand()) else {
        return;
    };
    let to = from.on(&to.url);
    let before = from.seed().await;
    let job = backed_up(&from, from.source()).await;
    restores(&job, &to, &to.target(), &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_meanwhile_changes_nothing_in_the_backup() {
    for cluster in Kind::all() {
        let before = cluster.seed().await;
        let own = cluster.on(&cluster.url);
        let writer = Once::at_first_part(move || {
            wait_for(async move {
                let all = json!({"query": {"match_all": {}}});
                let (bulk, orders) = (own.name("bulk"), own.name("orders"));
                for (what, body) in [
                    (format!("{bulk}/_delete_by_query?refresh=true"), &all),
                    (format!("{orders}/_update_by_query?refresh=true"), &all),
                    (format!("{orders}/_doc?refresh=true"), &json!({"n": 1000})),
                    (
                        format!("{orders}/_forcemerge?max_num_segments=1"),
                        &Value::Null,
                    ),
                ] {
                    own.ask(Method::POST, &format!("/{what}"), body.clone())
                        .await;
                }
            });
        });
        let sink = MemorySink::new();
        back_up_watched(cluster.source(), &sink, &writer)
            .await
            .unwrap();
        assert!(writer.fired());
        assert_ne!(cluster.fingerprint().await, before, "somebody wrote");
        cluster.wipe().await;
        let job = job(cluster.source(), sink).build().unwrap();
        restores(&job, &cluster, &cluster.target(), &before).await;
    }
}

#[tokio::test]
async fn each_index_at_its_own_moment_comes_back_as_well() {
    for cluster in Kind::all() {
        let before = cluster.seed_with(50).await;
        let job = backed_up(&cluster, cluster.source().one_moment(false)).await;
        let backup = job.find("latest").await.unwrap();
        assert_eq!(backup.manifest.facts.get("moment").unwrap(), "each");
        restores(&job, &cluster, &cluster.target(), &before).await;
    }
}

async fn seeded(cluster: &Cluster) -> backup_core::Job {
    cluster.seed_few(50).await;
    let sink = MemorySink::new();
    back_up(cluster.source(), &sink).await.unwrap();
    job(cluster.source(), sink).build().unwrap()
}

#[tokio::test]
async fn some_indices_come_back_beside_the_others_and_take_over_their_aliases() {
    for cluster in Kind::all() {
        let job = seeded(&cluster).await;
        let orders = cluster.name("orders");
        let count =
            async |index: &str| cluster.get(&format!("/{index}/_count")).await["count"].clone();
        cluster
            .ask(
                Method::DELETE,
                &format!("/{orders}/_doc/o%200%22%C3%BC?routing=r0&refresh=true"),
                Value::Null,
            )
            .await;
        let beside = || cluster.target().indices([&orders]).rename("old-*").unwrap();
        restore(&job, &beside(), anything()).await.unwrap();
        let old = format!("old-{orders}");
        assert_eq!(
            (count(&orders).await, count(&old).await),
            (json!(59), json!(60))
        );
        // Nobody sees it yet.
        let current = format!("{}current", cluster.prefix);
        assert_eq!(count(&current).await, 59);
        let error = restore(&job, &beside(), anything()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");

        let name = cluster.url.clone();
        restore(
            &job,
            &beside().aliases(Aliases::Swap),
            anything().overwrite(name),
        )
        .await
        .unwrap();
        assert_eq!(count(&current).await, 60);
        let aliases = cluster.get(&format!("/_alias/{}*", cluster.prefix)).await;
        let having: Vec<&String> = aliases.as_object().unwrap().keys().collect();
        assert_eq!(having, [&old]);
        let filter = &aliases[&old]["aliases"][cluster.name("cheap")];
        assert_eq!(filter["filter"]["range"]["n"]["lt"], 10, "{filter}");
        // Where it was stays as it was.
        assert_eq!(count(&orders).await, 59);
        cluster.wipe().await;
    }
}

#[tokio::test]
async fn what_is_there_is_replaced_only_as_far_as_the_backup_has_it() {
    for cluster in Kind::all() {
        let job = seeded(&cluster).await;
        let (mine, bulk) = (cluster.name("mine"), cluster.name("bulk"));
        cluster
            .put(&format!("/{mine}/_doc/1?refresh=true"), json!({"a": 1}))
            .await;
        cluster
            .put(&format!("/{bulk}/_doc/more?refresh=true"), json!({"a": 1}))
            .await;
        let named = || anything().overwrite(cluster.url.clone());
        let fail = cluster.target().conflict(Conflict::Fail);
        let error = restore(&job, &fail, named()).await.unwrap_err();
        assert!(
            one_clear_line(&error).contains("is there already"),
            "{error:?}"
        );
        restore(&job, &cluster.target(), named()).await.unwrap();
        assert_eq!(cluster.get(&format!("/{bulk}/_count")).await["count"], 50);
        assert_eq!(cluster.get(&format!("/{mine}/_count")).await["count"], 1);
        // A name of an index that is an alias here.
        cluster
            .ask(Method::DELETE, &format!("/{bulk}"), Value::Null)
            .await;
        cluster
            .put(&format!("/{mine}/_alias/{bulk}"), json!({}))
            .await;
        let error = restore(&job, &cluster.target(), named()).await.unwrap_err();
        assert!(
            one_clear_line(&error).contains("is an alias in this cluster"),
            "{error:?}"
        );
        assert_eq!(cluster.get(&format!("/{mine}/_count")).await["count"], 1);
        cluster.wipe().await;
    }
}

#[tokio::test]
async fn options_of_one_restore_choose_and_rename() {
    let Some(cluster) = Kind::V3.at_hand() else {
        return;
    };
    let job = seeded(&cluster).await;
    cluster.wipe().await;
    let bulk = cluster.name("bulk");
    restore(&job, &cluster.target(), option("indices", json!([bulk])))
        .await
        .unwrap();
    assert_eq!(cluster.count().await, 1);
    let error = restore(
        &job,
        &cluster.target(),
        option("indices", json!(["no-such"])),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "it holds one: {error:?}");
    cluster.wipe().await;
    let error = restore(
        &job,
        &cluster.target(),
        option("indices", json!(["no-such"])),
    )
    .await
    .unwrap_err();
    assert!(one_clear_line(&error).contains("`no-such`"), "{error:?}");
    assert_eq!(cluster.count().await, 0);
    // A state that is there is left alone.
    let pipeline = format!("/_ingest/pipeline/{}", cluster.name("stamp"));
    cluster
        .put(&pipeline, json!({"description": "mine", "processors": []}))
        .await;
    restore(&job, &cluster.target(), anything()).await.unwrap();
    assert_eq!(
        cluster.get(&pipeline).await[cluster.name("stamp")]["description"],
        "mine"
    );
    cluster.wipe().await;
}

/// Numbers, repeated names and the white space between words: what was sent is what comes back,
/// but for ends of lines.
#[tokio::test]
async fn a_document_comes_back_as_it_was_written() {
    for cluster in Kind::all() {
        let index = cluster.name("verbatim");
        let written = "{ \"big\":\n 123456789012345678901234567890,\r\n\"e\": 1.0E10, \"z\" : 1.10, \"t\":\"a\\nb\", \"e2\":-0.0 }";
        cluster
            .put(
                &format!("/{index}"),
                json!({"mappings": {"dynamic": "false"}}),
            )
            .await;
        let (status, said) = cluster
            .try_ask(
                Method::PUT,
                &format!("/{index}/_doc/1?refresh=true"),
                written,
            )
            .await;
        assert_eq!(status, 201, "{said}");
        let job = backed_up(&cluster, cluster.source()).await;
        restore(&job, &cluster.target(), anything()).await.unwrap();
        let (_, found) = cluster
            .try_ask(Method::GET, &format!("/{index}/_source/1"), "")
            .await;
        assert_eq!(found, written.replace(['\n', '\r'], " "));
        cluster.wipe().await;
    }
}

#[tokio::test]
async fn what_cannot_be_whole_is_refused() {
    for cluster in Kind::all() {
        cluster
            .put(&format!("/{}", cluster.name("a")), json!({}))
            .await;
        let own = format!("{}*", cluster.prefix);
        let from = |patterns: &[&str]| {
            OpenSearch::from_url(&cluster.url)
                .unwrap()
                .indices(patterns.iter().copied())
                .state([&own])
        };
        let refused = async |source: OpenSearch, why: &str| {
            let sink = MemorySink::new();
            let error = back_up(source, &sink).await.unwrap_err();
            assert!(one_clear_line(&error).contains(why), "{error:?}");
            let job = job(cluster.source(), sink).build().unwrap();
            assert!(job.find("latest").await.is_err());
        };
        refused(from(&["t0-no-such-*"]), "no index is meant").await;
        refused(
            from(&[&own, "[object object]"]),
            "no data stream `[object object]`",
        )
        .await;
        cluster
            .put(
                &format!("/{}", cluster.name("b")),
                json!({"mappings": {"_source": {"enabled": false}}}),
            )
            .await;
        refused(cluster.source(), "whole `_source`").await;
        let out = format!("-{}", cluster.name("b"));
        back_up(from(&[&own, &out]), &MemorySink::new())
            .await
            .unwrap();
        cluster
            .ask(
                Method::POST,
                &format!("/{}/_close", cluster.name("b")),
                Value::Null,
            )
            .await;
        refused(cluster.source(), "is closed").await;
        assert!(cluster.points().await.is_empty());
        cluster.wipe().await;
    }
}

#[tokio::test]
async fn documents_of_very_different_sizes_and_an_index_that_forbids_writing_come_back() {
    let Some(cluster) = Kind::V3.at_hand() else {
        return;
    };
    let index = cluster.name("sizes");
    cluster
        .put(
            &format!("/{index}"),
            json!({"settings": {"number_of_replicas": 0}, "mappings": {"dynamic": "false"}}),
        )
        .await;
    // Small ones, so that a page takes many, and then some of several megabytes.
    let mut lines = String::new();
    for n in 0..9000 {
        lines.push_str(&format!(
            "{{\"index\":{{\"_index\":\"{index}\",\"_id\":\"{n}\"}}}}\n{{\"n\":{n}}}\n"
        ));
    }
    cluster.bulk(&lines).await;
    for n in 0..5 {
        let large = json!({"n": n, "text": "x".repeat(5 << 20)});
        cluster
            .put(&format!("/{index}/_doc/large{n}?refresh=true"), large)
            .await;
    }
    cluster
        .put(
            &format!("/{index}/_settings"),
            json!({"index.blocks.write": true, "index.number_of_replicas": 1}),
        )
        .await;
    let sink = MemorySink::new();
    back_up(cluster.source(), &sink).await.unwrap();
    cluster
        .ask(Method::DELETE, &format!("/{index}"), Value::Null)
        .await;
    let job = job(cluster.source(), sink).build().unwrap();
    restore(&job, &cluster.target(), anything()).await.unwrap();
    assert_eq!(
        cluster.get(&format!("/{index}/_count")).await["count"],
        9005
    );
    let settings = &cluster
        .get(&format!("/{index}/_settings?flat_settings=true"))
        .await[&index]["settings"];
    assert_eq!(settings["index.blocks.write"], "true");
    assert_eq!(settings["index.number_of_replicas"], "1");
    assert_eq!(settings["index.refresh_interval"], Value::Null);
    cluster
        .put(
            &format!("/{index}/_settings"),
            json!({"index.blocks.write": null}),
        )
        .await;
    cluster.wipe().await;
}
