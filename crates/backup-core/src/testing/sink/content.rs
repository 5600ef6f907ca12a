//! Bytes in, the same bytes out.

use super::*;
use crate::testing::noise;

/// Objects of no byte, of one, and of about a chunk come back as they were put.
pub async fn objects_come_back(fixture: &SinkFixture) {
    for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1] {
        comes_back(&*fixture.sink, len).await;
    }
}

/// Objects that no single buffer or request holds come back as they were put.
pub async fn large_objects_come_back(fixture: &SinkFixture) {
    comes_back(&*fixture.sink, 20 * 1024 * 1024 + 1).await;
}

async fn comes_back(sink: &dyn Sink, len: usize) {
    let bytes = noise(len, len as u64);
    let key = key(&format!("sizes/{len}"));
    let object = put(sink, &key, bytes.clone()).await;
    assert_eq!(object.len, len as u64, "put told another length");
    assert_holds(sink, &key, &bytes).await;
}

/// Empty chunks, chunks of one byte and chunks larger than [`CHUNK`] make no difference.
pub async fn chunks_may_have_any_size(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let bytes = noise(3 * CHUNK + 2_000, 1);
    let mut rest = bytes.clone();
    let mut chunks = vec![Bytes::new()];
    for _ in 0..1_000 {
        chunks.push(rest.split_to(1));
        chunks.push(Bytes::new());
    }
    chunks.push(rest.split_to(3 * CHUNK));
    chunks.extend([Bytes::new(), Bytes::new(), rest, Bytes::new()]);

    let key = key("chunks/odd");
    let data = ByteStream::new(stream::iter(chunks.into_iter().map(Ok)));
    let outcome = sink.put(&key, data, &PutOptions::default()).await;
    assert_eq!(outcome.expect("put odd chunks").len, bytes.len() as u64);
    assert_holds(sink, &key, &bytes).await;
}

/// A range gives the bytes from its start up to, and without, its end.
pub async fn ranges_are_half_open(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let bytes = noise(2 * CHUNK + 10, 2);
    let (chunk, len) = (CHUNK as u64, bytes.len() as u64);
    let (full, empty) = (key("ranges/full"), key("ranges/empty"));
    put(sink, &full, bytes.clone()).await;
    put(sink, &empty, Bytes::new()).await;
    let ranges = [
        0..0,
        0..1,
        0..len,
        1..len,
        7..7,
        chunk - 1..chunk + 1,
        5..len - 5,
        len - 1..len,
        len..len,
    ];
    for range in ranges {
        let back = read(sink, &(&full).into(), Some(range.clone())).await;
        let back = back.unwrap_or_else(|error| panic!("read {range:?} of {len}: {error:?}"));
        let expected = bytes.slice(range.start as usize..range.end as usize);
        assert_same(&back, &expected, &format!("range {range:?}"));
    }
    let nothing = read(sink, &empty.into(), Some(0..0)).await;
    assert_eq!(nothing.expect("read nothing of nothing"), Bytes::new());
}

/// Who asks for more than there is gets `Invalid`, never fewer bytes.
pub async fn a_range_beyond_the_end_is_invalid(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let at = key("ranges/ten");
    put(sink, &at, noise(10, 3)).await;
    for (start, end) in [(0, 11), (10, 11), (11, 11), (20, 30), (5, 4), (0, u64::MAX)] {
        let range = Range { start, end };
        let outcome = read(sink, &(&at).into(), Some(range)).await;
        assert_kind(
            outcome,
            ErrorKind::Invalid,
            &format!("bytes {start}..{end} of ten"),
        );
    }
}

/// Bodies may be read side by side, at any pace, or not at all.
pub async fn bodies_do_not_disturb_each_other(fixture: &SinkFixture) {
    let sink = &*fixture.sink;
    let bytes = noise(3 * CHUNK, 4);
    let key = key("bodies/one");
    put(sink, &key, bytes.clone()).await;
    let at = Locator::from(&key);
    let mut slow = sink.get(&at, None).await.expect("get once");
    let first = slow
        .next()
        .await
        .expect("a first chunk")
        .expect("a good chunk");
    drop(sink.get(&at, None).await.expect("get a body nobody reads"));
    assert_holds(sink, &key, &bytes).await;
    let rest = slow
        .collect(usize::MAX)
        .await
        .expect("the rest of the slow body");
    assert_same(&[first, rest].concat().into(), &bytes, "the slow body");
}
