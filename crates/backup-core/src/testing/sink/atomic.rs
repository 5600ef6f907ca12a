//! A put is all or nothing, and once.

use std::future::poll_fn;
use std::task::Poll;

use futures::future::{join, join_all};

use super::*;
use crate::testing::{eventually, noise};

/// How much data flowed before it goes wrong: nothing, some, and enough that a first piece of a
/// multipart upload is on its way.
const MOMENTS: [usize; 3] = [0, CHUNK + 1, 17 * 1024 * 1024];

/// A second put is `AlreadyExists`, also with the same bytes, and changes nothing.
pub async fn put_refuses_to_overwrite(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let (key, bytes) = (key("orders/manifest.json"), noise(1_000, 1));
    put(sink, &key, bytes.clone()).await;
    let before = sink.stat(&(&key).into()).await.expect("stat");
    for second in [noise(2_000, 2), Bytes::new(), bytes.clone()] {
        let data = ByteStream::from_bytes(second);
        let outcome = sink.put(&key, data, &PutOptions::default()).await;
        assert_kind(outcome, ErrorKind::AlreadyExists, "a second put");
        assert_holds(sink, &key, &bytes).await;
    }
    assert_eq!(listed(sink, None).await, [before]);
}

/// Of puts of one key that run at the same time exactly one is `Ok`, the others are
/// `AlreadyExists`, and the object holds the bytes of the one.
pub async fn of_concurrent_puts_one_wins(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    for round in 0..8 {
        let key = key(&format!("claims/{round}"));
        let bytes: Vec<Bytes> = (0..4).map(|n| noise(CHUNK + n, n as u64)).collect();
        // Each waits, with all its data sent, until the others got as far or were refused.
        let (streams, gates): (Vec<_>, Vec<_>) =
            bytes.iter().map(|bytes| Gate::after(bytes.clone())).unzip();
        let options = PutOptions::default();
        let puts = streams
            .into_iter()
            .map(|data| sink.put(&key, data, &options));
        let referee = async {
            let mut open = Vec::new();
            for gate in gates {
                // A sink that takes one put after the other may do so: hence the limit.
                let limit = std::time::Duration::from_millis(500);
                let _ = tokio::time::timeout(limit, gate.reached).await;
                open.push(gate.open);
            }
            for open in open {
                // A put that was refused already dropped its data.
                let _ = open.send(());
            }
        };
        let (outcomes, ()) = join(join_all(puts), referee).await;
        let winners: Vec<usize> = (0..4).filter(|n| outcomes[*n].is_ok()).collect();
        assert_eq!(
            winners.len(),
            1,
            "one put of `{key}` must win: {outcomes:?}"
        );
        for outcome in outcomes.into_iter().filter(Result::is_err) {
            assert_kind(outcome, ErrorKind::AlreadyExists, "the put that lost");
        }
        assert_holds(sink, &key, &bytes[winners[0]]).await;
    }
}

/// An error of the data comes back as it is, whatever flowed before, and nothing is visible.
pub async fn a_failed_stream_comes_back_and_leaves_nothing(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    for (moment, kind) in MOMENTS.into_iter().zip([
        ErrorKind::Source,
        ErrorKind::Cancelled,
        ErrorKind::Unavailable,
    ]) {
        let key = key(&format!("failed/{moment}"));
        let error = Error::new(kind, "pg_dump exited 1");
        let data = failing(noise(moment, 1), error);
        let outcome = sink.put(&key, data, &PutOptions::default()).await;
        let error = assert_kind(outcome, kind, "put of data that fails");
        let chain = error.chain();
        assert!(
            chain.contains("pg_dump exited 1"),
            "the reason is lost: {chain}"
        );
        assert_invisible(sink, &key, "its data failed").await;
    }
}

/// Dropping a put while its data flows leaves nothing to see, now and later.
pub async fn a_dropped_put_leaves_nothing(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    for moment in MOMENTS {
        let key = key(&format!("dropped/{moment}"));
        drop_midway(sink, &key, moment).await;
        for _ in 0..20 {
            assert_invisible(sink, &key, "its put was dropped").await;
            tokio::task::yield_now().await;
        }
    }
}

/// Starts a put, waits until `moment` bytes of its data were taken, and drops it.
pub(super) async fn drop_midway(sink: &dyn Sink, key: &Key, moment: usize) {
    let (data, mut gate) = Gate::after(noise(moment, 1));
    let options = PutOptions::default();
    tokio::select! {
        biased;
        outcome = sink.put(key, data, &options) => {
            panic!("put of data that did not end: {outcome:?}")
        }
        _ = &mut gate.reached => {}
    }
}

/// A dropped put drops its data, so that what makes the data can end.
pub async fn a_dropped_put_lets_go_of_its_data(fixture: &SinkFixture) {
    let (data, mut gate) = Gate::after(noise(CHUNK + 1, 1));
    let (key, options) = (key("dropped/data"), PutOptions::default());
    tokio::select! {
        biased;
        outcome = fixture.sink.put(&key, data, &options) => {
            panic!("put of data that did not end: {outcome:?}")
        }
        _ = &mut gate.reached => {}
    }
    let limit = std::time::Duration::from_secs(10);
    let let_go = tokio::time::timeout(limit, gate.dropped).await;
    assert!(
        let_go.is_ok(),
        "ten seconds after the drop the data is still held"
    );
}

/// A put that is dropped between any two steps has stored everything or nothing.
pub async fn a_put_dropped_at_any_moment_is_whole_or_absent(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let bytes = noise(2 * CHUNK + 1, 1);
    for steps in 1..200 {
        let key = key(&format!("steps/{steps}"));
        let options = PutOptions::default();
        let data = ByteStream::new(cut(bytes.clone()));
        let mut put = sink.put(&key, data, &options);
        let mut left = steps;
        let outcome = poll_fn(|cx| match put.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => {
                left -= 1;
                if left == 0 {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                }
            }
        });
        let outcome = outcome.await;
        drop(put);
        match outcome {
            Some(outcome) => {
                outcome.expect("a put that ran to its end");
                assert_holds(sink, &key, &bytes).await;
                return;
            }
            // The last step may have been on its way already, on another thread or machine.
            None if sink.stat(&(&key).into()).await.is_ok() => {
                assert_holds(sink, &key, &bytes).await;
            }
            None => {}
        }
        for object in listed(sink, None).await {
            assert_eq!(
                object.len,
                bytes.len() as u64,
                "`{}` is not whole",
                object.key
            );
        }
    }
}

/// A key whose put failed or was dropped is free.
pub async fn an_abandoned_key_can_be_put_again(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let bytes = noise(CHUNK, 2);
    for moment in MOMENTS {
        let key = key(&format!("again/{moment}"));
        let data = failing(noise(moment, 1), Error::new(ErrorKind::Source, "gone"));
        let outcome = sink.put(&key, data, &PutOptions::default()).await;
        assert_kind(outcome, ErrorKind::Source, "put of data that fails");
        drop_midway(sink, &key, moment).await;
        eventually("the key is free", async || {
            let data = ByteStream::from_bytes(bytes.clone());
            match sink.put(&key, data, &PutOptions::default()).await {
                Ok(_) => true,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
                Err(error) => panic!("put again: {error:?}"),
            }
        })
        .await;
        assert_holds(sink, &key, &bytes).await;
    }
}
