//! Servers that answer, and do not do what they are asked.

use std::net::TcpListener;

use backup_core::testing::eventually;
use backup_core::{ErrorKind, MemorySink};
use serde_json::json;

use crate::support::gate::{
    BUSY, BUSY_ITEMS, FORBIDDEN, Gate, NO_MANAGER, Reply, Rule, SHARD_FAILED, UNAUTHORIZED,
};
use crate::support::{Kind, back_up, backed_up, restores};
use crate::{fails, fails_to_restore, source_at, target_at};

#[tokio::test]
async fn who_may_not_read_makes_no_backup() {
    let Some(cluster) = Kind::V3.at_hand() else {
        return;
    };
    cluster.seed_with(10).await;
    let steps = [
        "GET / ",
        "GET /_resolve",
        "POST /t",
        "GET /_cluster/state",
        "GET /_ingest",
        "GET /_search/pipeline",
        "GET /_component_template",
        "GET /_index_template",
        "GET /_template",
        "GET /.ds-",
        "POST /_search",
    ];
    for request in steps {
        for (reply, says) in [
            (UNAUTHORIZED, "does not know this user and password"),
            (FORBIDDEN, "no permissions for"),
        ] {
            let gate = Gate::to(cluster.port(), Rule::all(request, reply));
            fails(source_at(&cluster, &gate.url), ErrorKind::Denied, says).await;
            assert!(gate.fired() > 0, "nobody asked {request}");
        }
    }
    eventually("points in time are closed", async || {
        cluster.points().await.is_empty()
    })
    .await;
    back_up(cluster.source(), &MemorySink::new()).await.unwrap();
    cluster.wipe().await;
}

#[tokio::test]
async fn who_may_not_write_restores_nothing() {
    let Some(cluster) = Kind::V3.at_hand() else {
        return;
    };
    let before = cluster.seed_with(10).await;
    let job = backed_up(&cluster, cluster.source()).await;
    for request in [
        "GET /_resolve",
        "PUT /_scripts",
        "PUT /_ingest",
        "PUT /_search/pipeline",
        "PUT /_component_template",
        "PUT /_index_template",
        "PUT /t",
        "PUT /_data_stream",
        "POST /_bulk",
        "POST /t",
        "GET /t",
        "POST /_aliases",
    ] {
        let gate = Gate::to(cluster.port(), Rule::all(request, FORBIDDEN));
        let error = fails_to_restore(&job, &cluster, &target_at(&cluster, &gate.url)).await;
        assert!(gate.fired() > 0, "nobody asked {request}");
        assert_eq!(error.kind(), ErrorKind::Denied, "{request}: {error:?}");
        // Scripts, pipelines and templates stay, and would not be asked for again.
        cluster.wipe().await;
    }
    restores(&job, &cluster, &cluster.target(), &before).await;
}

#[tokio::test]
async fn a_restore_that_fails_leaves_no_half_an_index() {
    for cluster in Kind::all() {
        let before = cluster.seed_few(3000).await;
        let job = backed_up(&cluster, cluster.source()).await;
        // In the midst of the documents of one index: the others were made.
        let rule = Rule::some("POST /_bulk", 2, 1, FORBIDDEN);
        let gate = Gate::to(cluster.port(), rule);
        let error = fails_to_restore(&job, &cluster, &target_at(&cluster, &gate.url)).await;
        assert_eq!(gate.fired(), 1);
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(error.chain().contains("was deleted again"), "{error:?}");
        restores(&job, &cluster, &cluster.target(), &before).await;
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_and_half_an_answer_is_none() {
    let Some(cluster) = Kind::V3.at_hand() else {
        return;
    };
    let before = cluster.seed_with(10).await;
    let gate = Gate::to(cluster.port(), Rule::some("POST /_search", 3, 2, BUSY));
    back_up(source_at(&cluster, &gate.url), &MemorySink::new())
        .await
        .unwrap();
    assert_eq!(gate.fired(), 2);
    for (rule, kind, says) in [
        (
            Rule::some("POST /_search", 0, 2, SHARD_FAILED),
            ErrorKind::Source,
            "not every shard",
        ),
        (
            Rule::all("GET /_resolve", NO_MANAGER),
            ErrorKind::Unavailable,
            "cluster_manager_not_discovered",
        ),
    ] {
        let gate = Gate::to(cluster.port(), rule);
        fails(source_at(&cluster, &gate.url), kind, says).await;
        assert!(gate.fired() > 0);
    }

    let job = backed_up(&cluster, cluster.source()).await;
    let gate = Gate::to(cluster.port(), Rule::some("POST /_bulk", 0, 2, BUSY));
    restores(&job, &cluster, &target_at(&cluster, &gate.url), &before).await;
    assert_eq!(gate.fired(), 2);

    // One document alone, so that the table's answer fits.
    let one = format!("/{}/_doc/1?refresh=true", cluster.name("one"));
    cluster.put(&one, json!({"a": 1})).await;
    let before = cluster.fingerprint().await;
    let job = backed_up(&cluster, cluster.source()).await;
    let gate = Gate::to(cluster.port(), Rule::some("POST /_bulk", 0, 1, BUSY_ITEMS));
    restores(&job, &cluster, &target_at(&cluster, &gate.url), &before).await;
    assert_eq!(gate.fired(), 1);
}

#[tokio::test]
async fn who_answers_something_else_is_no_cluster() {
    let Some(cluster) = Kind::V3.at_hand() else {
        return;
    };
    let page = Reply {
        status: 200,
        body: "<html>Welcome</html>",
    };
    let gate = Gate::to(cluster.port(), Rule::all("GET / ", page));
    fails(
        source_at(&cluster, &gate.url),
        ErrorKind::Other,
        "the answer is none of OpenSearch",
    )
    .await;
    assert!(gate.fired() > 0);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let nobody = format!("http://{}", nobody.unwrap());
    fails(
        source_at(&cluster, &nobody),
        ErrorKind::Unavailable,
        "no connection",
    )
    .await;
}
