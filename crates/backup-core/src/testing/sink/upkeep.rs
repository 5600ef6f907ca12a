//! Removing, locking, sweeping, and honesty.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::atomic::drop_midway;
use super::*;
use crate::testing::{eventually, noise};
use crate::{Clock, SystemClock};

/// `delete` removes that object for good, and no other; its key is free again.
pub async fn delete_removes_one_object(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let (gone, others) = (key("orders/1"), [key("orders/10"), key("orders/2/a")]);
    for other in &others {
        put(sink, other, "stays").await;
    }
    for round in ["once", "twice"] {
        let object = put(sink, &gone, round).await;
        sink.delete(&object.locator()).await.expect("delete");
        assert_invisible(sink, &gone, "it was deleted").await;
        let versions: Vec<Object> = sink
            .versions(Some(&gone))
            .try_collect()
            .await
            .expect("versions");
        let hidden = versions.iter().find(|v| v.version == object.version);
        assert_eq!(hidden, None, "delete only hid it");
        assert_eq!(listed_keys(sink, None).await, ["orders/10", "orders/2/a"]);
    }
}

/// Deleting what is not there is `Ok`, so that a deletion can be repeated.
pub async fn deleting_what_is_missing_is_ok(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let key = key("orders/1");
    sink.delete(&(&key).into())
        .await
        .expect("delete in an empty sink");
    let object = put(sink, &key, "x").await;
    sink.delete(&object.locator()).await.expect("delete");
    sink.delete(&object.locator())
        .await
        .expect("delete once more");
}

/// `retain_until` makes an object that cannot be deleted, or is `Unsupported` and nothing is
/// written: as the capabilities say, and never ignored.
pub async fn a_lock_is_honoured_or_refused(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let (key, bytes) = (key("orders/locked"), noise(100, 1));
    let until = SystemClock.now() + Duration::from_secs(90);
    let options = PutOptions::default().retain_until(until);
    let data = ByteStream::from_bytes(bytes.clone());
    let outcome = sink.put(&key, data, &options).await;
    if !sink.capabilities().lock {
        assert_kind(
            outcome,
            ErrorKind::Unsupported,
            "a lock on a sink that has none",
        );
        return assert_invisible(sink, &key, "its lock was refused").await;
    }
    let object = outcome.expect("put with a lock");
    let stat = sink.stat(&object.locator()).await.expect("stat");
    for told in [object.lock_until, stat.lock_until] {
        let told = told.expect("a locked object tells until when");
        // Stores round to the second.
        assert!(
            told + Duration::from_secs(1) > until,
            "locked only until {told:?}"
        );
    }
    let outcome = sink.delete(&object.locator()).await;
    assert_kind(outcome, ErrorKind::Locked, "delete under a lock");
    assert_holds(sink, &key, &bytes).await;
}

/// `sweep` touches nothing that `list` shows, however old.
pub async fn sweep_leaves_objects_alone(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let keys = ["orders/1/manifest.json", "orders/1/tmp", "x", "y.tmp"];
    for text in keys {
        put(sink, &key(text), text).await;
    }
    sink.sweep(Duration::ZERO).await.expect("sweep");
    assert_eq!(listed_keys(sink, None).await, keys);
    for text in keys {
        assert_holds(sink, &key(text), &Bytes::from_static(text.as_bytes())).await;
    }
}

/// `sweep` spares what is younger than it was told: a put in flight ends well.
pub async fn sweep_spares_a_put_in_flight(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let (key, bytes) = (key("orders/slow"), noise(17 * 1024 * 1024, 1));
    let (data, gate) = Gate::after(bytes.clone());
    let options = PutOptions::default();
    let sweep = async {
        gate.reached.await.expect("the data was read");
        let swept = sink.sweep(Duration::from_secs(3_600)).await;
        gate.open.send(()).expect("the put goes on");
        swept
    };
    let (outcome, swept) = tokio::join!(sink.put(&key, data, &options), sweep);
    swept.expect("sweep");
    outcome.expect("put during a sweep");
    assert_holds(sink, &key, &bytes).await;
}

/// What puts left that failed or were dropped is gone after a `sweep`, which counts it once.
pub async fn sweep_removes_what_abandoned_puts_left(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let bytes = 17 * 1024 * 1024;
    let data = failing(noise(bytes, 1), Error::new(ErrorKind::Source, "gone"));
    let outcome = sink
        .put(&key("orders/1"), data, &PutOptions::default())
        .await;
    assert_kind(outcome, ErrorKind::Source, "put of data that fails");
    drop_midway(sink, &key("orders/2"), bytes).await;
    drop_midway(sink, &key("top"), 1).await;
    eventually("nothing is left to sweep", async || {
        let swept = sink.sweep(Duration::ZERO).await.expect("sweep");
        swept.objects == 0 && (fixture.leftovers)() == 0
    })
    .await;
    assert_eq!(listed(sink, None).await, []);
    put(sink, &key("orders/1"), "after the sweep").await;
}

/// A put of any length holds no more of its data than [`Capabilities`](crate::Capabilities)
/// tell, and the chunk in hand.
pub async fn put_holds_no_more_than_it_declares(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let declared = sink.capabilities().put_memory;
    assert!(
        declared <= 256 * 1024 * 1024,
        "{declared} bytes for each put are no bound"
    );
    let chunks = (2 * declared + 16 * 1024 * 1024) / CHUNK;
    let live = Arc::new(AtomicUsize::new(0));
    let counter = live.clone();
    let data = stream::iter(0..chunks).map(move |_| {
        let held = counter.load(Ordering::SeqCst) * CHUNK;
        assert!(
            held <= declared + CHUNK,
            "holds {held} bytes of its data where {declared} are declared"
        );
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Bytes::from_owner(Counted(counter.clone())))
    });
    let outcome = sink
        .put(
            &key("orders/long"),
            ByteStream::new(data),
            &PutOptions::default(),
        )
        .await;
    assert_eq!(outcome.expect("put").len, (chunks * CHUNK) as u64);
    assert_eq!(live.load(Ordering::SeqCst), 0, "chunks held after the put");
}

/// One chunk of zeros that is counted while somebody holds it.
struct Counted(Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        static ZEROS: [u8; CHUNK] = [0; CHUNK];
        &ZEROS
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// `Display` is one line for people. Neither it nor `Debug` nor an error shows a password.
pub async fn it_names_itself_and_shows_no_secret(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let name = sink.to_string();
    assert!(
        !name.trim().is_empty() && !name.contains('\n'),
        "its name is {name:?}"
    );
    let missing = sink.stat(&key("orders/missing").into()).await;
    let texts = [
        name,
        format!("{sink:?} {sink:#?}"),
        format!("{missing:?}"),
        missing.expect_err("nothing is there").chain(),
    ];
    for text in texts {
        let secret = fixture.secret.as_deref();
        assert!(
            !secret.is_some_and(|secret| text.contains(secret)),
            "a secret shows in {text:?}"
        );
    }
}
