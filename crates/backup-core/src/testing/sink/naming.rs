//! What is where.

use super::*;

/// Keys differ by every character that they may have, upper and lower case included, up to the
/// longest one, and come back as they were spelt.
pub async fn keys_keep_their_spelling(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let long = "x".repeat(200);
    let deep = [long.as_str(); 4].join("/");
    let mut keys = vec![
        "a-Z_0.9+x/b",
        "a-z_0.9+x/b",
        "a-Z_0.9+x/B",
        "a-Z_0.9+x/b+",
        "a-Z_0.9+x/b.",
        "a-Z_0.9+x/+",
        "a-Z_0.9+x/_",
        "a-Z_0.9+x/20261121T020000Z-1a2b3c4d",
        deep.as_str(),
    ];
    for text in &keys {
        put(sink, &key(text), Bytes::copy_from_slice(text.as_bytes())).await;
    }
    keys.sort_unstable();
    assert_eq!(listed_keys(sink, None).await, keys);
    for text in &keys {
        assert_holds(sink, &key(text), &Bytes::copy_from_slice(text.as_bytes())).await;
    }
}

const KEYS: [&str; 7] = [
    "orders-2/x",
    "orders.x",
    "orders/1/a",
    "orders/1/b",
    "orders/10/a",
    "orders/2",
    "orders2/a",
];

async fn put_all(sink: &dyn Sink) {
    for text in KEYS {
        put(sink, &key(text), text).await;
    }
}

/// `list` shows what lies under a prefix by whole segments, at any depth, and the object of that
/// very name; without a prefix everything; for nothing, nothing.
pub async fn list_goes_by_whole_segments(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    assert_eq!(
        listed_keys(sink, None).await,
        Vec::<String>::new(),
        "an empty sink"
    );
    put_all(sink).await;
    assert_eq!(listed_keys(sink, None).await, KEYS);
    let cases: [(&str, &[&str]); 6] = [
        ("orders", &KEYS[2..6]),
        ("orders/1", &["orders/1/a", "orders/1/b"]),
        ("orders/2", &["orders/2"]),
        ("orders/1/b", &["orders/1/b"]),
        ("order", &[]),
        ("elsewhere/deep", &[]),
    ];
    for (prefix, expected) in cases {
        let found = listed_keys(sink, Some(&key(prefix))).await;
        assert_eq!(found, expected, "under `{prefix}`");
    }
}

/// `children` gives each next segment once, be it a folder or an object.
pub async fn children_are_the_next_segments(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    assert_eq!(
        children(sink, None).await,
        Vec::<String>::new(),
        "an empty sink"
    );
    put_all(sink).await;
    let top = ["orders", "orders-2", "orders.x", "orders2"];
    assert_eq!(children(sink, None).await, top);
    let cases: [(&str, &[&str]); 4] = [
        ("orders", &["1", "10", "2"]),
        ("orders/1", &["a", "b"]),
        ("orders/2", &[]),
        ("order", &[]),
    ];
    for (prefix, expected) in cases {
        let found = children(sink, Some(&key(prefix))).await;
        assert_eq!(found, expected, "under `{prefix}`");
    }
}

/// Stores page their listings at 1,000; nobody above may notice.
pub async fn listings_go_beyond_a_thousand(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let keys: Vec<Key> = (0..1_234).map(|n| key(&format!("many/{n:04}/x"))).collect();
    stream::iter(&keys)
        .for_each_concurrent(16, async |key| {
            put(sink, key, "x").await;
        })
        .await;
    let expected: Vec<&str> = keys.iter().map(Key::as_str).collect();
    let many = key("many");
    assert!(
        listed_keys(sink, Some(&many)).await == expected,
        "list is incomplete"
    );
    let versions: Vec<Object> = sink
        .versions(Some(&many))
        .try_collect()
        .await
        .expect("versions");
    let missing = keys
        .iter()
        .find(|key| !versions.iter().any(|v| v.key == **key));
    assert_eq!(missing, None, "versions is incomplete");
    let folders: Vec<String> = (0..1_234).map(|n| format!("{n:04}")).collect();
    assert!(
        children(sink, Some(&many)).await == folders,
        "children is incomplete"
    );
}

/// `versions` shows everything that `list` shows, and exactly that where there are no versions.
pub async fn versions_show_what_list_shows(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    put_all(sink).await;
    for prefix in [None, Some(key("orders")), Some(key("elsewhere"))] {
        let prefix = prefix.as_ref();
        let mut versions: Vec<Object> =
            sink.versions(prefix).try_collect().await.expect("versions");
        versions.sort_by(|a, b| a.key.cmp(&b.key));
        let listed = listed(sink, prefix).await;
        if sink.capabilities().versions {
            let unnamed = versions.iter().find(|object| object.version.is_none());
            assert_eq!(unnamed, None, "a version without a name");
            let keys =
                |objects: &[Object]| objects.iter().map(|o| o.key.clone()).collect::<Vec<_>>();
            assert_eq!(keys(&versions), keys(&listed), "under {prefix:?}");
        } else {
            assert_eq!(versions, listed, "under {prefix:?}");
        }
    }
}

/// `put`, `stat` and `list` tell the same of an object, and it is read by the place that each
/// of them gives.
pub async fn stat_agrees_with_put_and_list(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let (key, other) = (key("orders/a"), key("orders/b"));
    let bytes = Bytes::from_static(b"twelve bytes");
    put(sink, &other, "other").await;
    let told = put(sink, &key, bytes.clone()).await;
    let stat = sink.stat(&(&key).into()).await.expect("stat");
    assert_eq!((&told.key, told.len), (&key, 12), "what put tells");
    assert_eq!(
        (&stat.key, stat.len, stat.lock_until),
        (&key, 12, told.lock_until)
    );
    let listed = listed(sink, Some(&key)).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].key, listed[0].len),
        (&key, 12),
        "what list tells"
    );
    for object in [&told, &stat, &listed[0]] {
        let back = read(sink, &object.locator(), None)
            .await
            .expect("read by its locator");
        assert_same(&back, &bytes, "the object");
        let again = sink
            .stat(&object.locator())
            .await
            .expect("stat by its locator");
        assert_eq!(again.len, 12);
    }
    assert_eq!(
        told.version.is_some(),
        sink.capabilities().versions,
        "versions are declared"
    );
}

/// What was never put is `NotFound`, and the message names it.
pub async fn what_is_missing_is_not_found(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    put(sink, &key("orders/there"), "x").await;
    for missing in [
        "orders/missing",
        "elsewhere/missing",
        "orders/there/below",
        "orders/ther",
    ] {
        let at = Locator::from(key(missing));
        let error = assert_kind(sink.stat(&at).await, ErrorKind::NotFound, "stat");
        assert!(
            error.chain().contains(missing),
            "stat does not name `{missing}`: {error:?}"
        );
        for range in [None, Some(0..1)] {
            let outcome = read(sink, &at, range).await;
            let error = assert_kind(outcome, ErrorKind::NotFound, "get");
            assert!(
                error.chain().contains(missing),
                "get does not name `{missing}`: {error:?}"
            );
        }
    }
}

/// The first segments of a key are no object, for any method.
pub async fn a_folder_is_no_object(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let key = key("orders/1/a");
    put(sink, &key, "x").await;
    for folder in ["orders", "orders/1"] {
        let at = Locator::from(self::key(folder));
        assert_kind(
            sink.stat(&at).await,
            ErrorKind::NotFound,
            "stat of a folder",
        );
        assert_kind(
            read(sink, &at, None).await,
            ErrorKind::NotFound,
            "get of a folder",
        );
        sink.delete(&at)
            .await
            .expect("delete of a folder, which is no object");
        assert_holds(sink, &key, &Bytes::from_static(b"x")).await;
    }
}
