//! Every fault does what it says, and counts it.

use std::io::{Cursor, Read};
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};

use super::*;
use crate::transform::{Reader, Stage};
use crate::{
    Coding, Job, Key, MemorySink, MemorySource, Object, Pipeline, PutOptions, RunOptions, Sink,
    StockCommand, Transform,
};

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

async fn put(sink: &impl Sink, name: &str) -> Result<Object> {
    let data = ByteStream::from_bytes("seven b");
    sink.put(&key(name), data, &PutOptions::default()).await
}

async fn get(sink: &impl Sink, name: &str) -> Result<Bytes> {
    let body = sink.get(&key(name).into(), None).await?;
    body.collect(100).await
}

/// What the sink told of the put, and what a reader finds there.
async fn after_put(fault: Fault) -> (Result<u64, ErrorKind>, Option<Bytes>, u64) {
    let inner = MemorySink::new();
    let sink = FaultySink::new(inner.clone()).at(Call::Put, 1, fault);
    let told = put(&sink, "a").await.map(|object| object.len);
    let told = told.map_err(|error| error.kind());
    (told, get(&inner, "a").await.ok(), sink.fired())
}

#[tokio::test(start_paused = true)]
async fn a_put_goes_wrong_as_planned() {
    let full = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let sink = ErrorKind::Sink;
    let cases = [
        (Fault::Fail(sink), Err(sink), None),
        (Fault::FailAfter(3, sink), Err(sink), None),
        (Fault::FailAfter(7, sink), Err(sink), None),
        (Fault::LoseReply(sink), Err(sink), full("seven b")),
        (Fault::Pretend, Ok(7), None),
        (Fault::Cut(3), Ok(7), full("sev")),
        (Fault::Flip(1), Ok(7), full("sdven b")),
        (Fault::WrongLength, Ok(8), full("seven b")),
        (Fault::Trickle, Ok(7), full("seven b")),
        (Fault::Slow(Duration::from_secs(1)), Ok(7), full("seven b")),
    ];
    for (fault, told, kept) in cases {
        assert_eq!(after_put(fault).await, (told, kept, 1), "{fault:?}");
    }
    // What does not come to pass is not counted.
    for fault in [Fault::Cut(7), Fault::Flip(7), Fault::FailAfter(8, sink)] {
        assert_eq!(
            after_put(fault).await,
            (Ok(7), full("seven b"), 0),
            "{fault:?}"
        );
    }
    assert!(after_put(Fault::StallAfter(3)).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_get_goes_wrong_as_planned() {
    let sink = ErrorKind::Sink;
    let cases = [
        (Fault::Fail(sink), Err(sink)),
        (Fault::FailAfter(3, sink), Err(sink)),
        (Fault::LoseReply(sink), Err(sink)),
        (Fault::Pretend, Ok("")),
        (Fault::Cut(3), Ok("sev")),
        (Fault::Flip(0), Ok("reven b")),
        (Fault::Trickle, Ok("seven b")),
        (Fault::Slow(Duration::from_secs(1)), Ok("seven b")),
    ];
    for (fault, expected) in cases {
        let sink = FaultySink::new(MemorySink::new()).from(Call::Get, 2, fault);
        put(&sink, "a").await.unwrap();
        assert_eq!(
            get(&sink, "a").await.unwrap(),
            "seven b",
            "the first is spared"
        );
        for fired in 1..=2 {
            let got = get(&sink, "a").await.map_err(|error| error.kind());
            assert_eq!(got, expected.map(Bytes::from), "{fault:?}");
            assert_eq!(sink.fired(), fired, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_listing_goes_wrong_as_planned() {
    let kind = ErrorKind::Unavailable;
    let cases = [
        (Fault::Fail(kind), None),
        (Fault::FailAfter(1, kind), None),
        (Fault::LoseReply(kind), None),
        (Fault::Pretend, Some(0)),
        (Fault::Cut(1), Some(1)),
    ];
    for (fault, expected) in cases {
        for call in [Call::List, Call::Children, Call::Versions] {
            let sink = FaultySink::new(MemorySink::new()).at(call, 1, fault);
            put(&sink, "a").await.unwrap();
            put(&sink, "b").await.unwrap();
            let names: Result<Vec<String>> = match call {
                Call::Children => sink.children(None).try_collect().await,
                Call::List => {
                    sink.list(None)
                        .map_ok(|o| o.key.to_string())
                        .try_collect()
                        .await
                }
                _ => {
                    sink.versions(None)
                        .map_ok(|o| o.key.to_string())
                        .try_collect()
                        .await
                }
            };
            assert_eq!(
                names.ok().map(|names| names.len()),
                expected,
                "{fault:?} {call:?}"
            );
            assert_eq!(sink.fired(), 1, "{fault:?} {call:?}");
        }
    }
}

#[tokio::test]
async fn a_deletion_goes_wrong_as_planned() {
    let kind = ErrorKind::Denied;
    let cases = [
        (Fault::Fail(kind), false, true),
        (Fault::LoseReply(kind), false, false),
        (Fault::Pretend, true, true),
    ];
    for (fault, ok, there) in cases {
        let sink = FaultySink::new(MemorySink::new()).at(Call::Delete, 1, fault);
        put(&sink, "a").await.unwrap();
        assert_eq!(sink.delete(&key("a").into()).await.is_ok(), ok, "{fault:?}");
        assert_eq!(
            sink.stat(&key("a").into()).await.is_ok(),
            there,
            "{fault:?}"
        );
        assert_eq!(sink.fired(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_source_goes_wrong_in_the_part_that_was_asked_for() {
    let parts = MemorySource::new([("a", "first"), ("b", "second")]);
    let kind = ErrorKind::Source;
    for (fault, stored) in [
        (Fault::FailAfter(6, kind), None),
        (Fault::Fail(kind), None),
        (Fault::Pretend, Some(vec![5])),
        (Fault::Cut(2), Some(vec![5, 2])),
    ] {
        let source = FaultySource::new(parts.clone()).at(2, fault);
        let job = Job::builder("kit")
            .source(source.clone())
            .pipeline(Pipeline::unencrypted())
            .sink("sink", MemorySink::new())
            .build()
            .unwrap();
        let outcome = job.run(RunOptions::default()).await;
        let lens = match outcome {
            Err(error) => {
                assert_eq!(error.kind(), kind, "{error:?}");
                None
            }
            Ok(report) => {
                let backup = job.find(report.id.as_str()).await.unwrap();
                Some(
                    backup
                        .manifest
                        .parts
                        .iter()
                        .map(|part| part.plain.len)
                        .collect(),
                )
            }
        };
        assert_eq!(lens, stored, "{fault:?}");
        assert_eq!(source.fired(), 1, "{fault:?}");
    }
}

/// Leaves the bytes alone.
#[derive(Debug)]
struct Same;

impl Transform for Same {
    fn id(&self) -> &str {
        "same"
    }
    fn suffix(&self) -> &str {
        ""
    }
    fn stage(&self) -> Stage {
        Stage::Sign
    }
    fn encode(&self, plain: Reader, _: &Coding) -> Result<Reader> {
        Ok(plain)
    }
    fn decode(&self, coded: Reader, _: &Coding) -> Result<Reader> {
        Ok(coded)
    }
    fn undo(&self) -> StockCommand {
        StockCommand::new(["cat"])
    }
    fn memory(&self, _: usize) -> usize {
        0
    }
}

#[test]
fn a_stage_goes_wrong_as_planned() {
    let kind = ErrorKind::Other;
    let cases = [
        (Fault::Fail(kind), None),
        (Fault::FailAfter(7, kind), None),
        (Fault::LoseReply(kind), None),
        (Fault::Pretend, Some("")),
        (Fault::Cut(3), Some("sev")),
        (Fault::Flip(0), Some("reven b")),
        (Fault::Trickle, Some("seven b")),
        (Fault::Slow(Duration::from_micros(1)), Some("seven b")),
    ];
    for (fault, expected) in cases {
        let stage = FaultyTransform::new(Same).at(Call::Encode, 1, fault);
        let coded = stage.encode(Box::new(Cursor::new("seven b")), &Coding::new(1));
        let coded = coded.and_then(|mut coded| {
            let mut text = String::new();
            coded.read_to_string(&mut text)?;
            Ok(text)
        });
        assert_eq!(coded.ok().as_deref(), expected, "{fault:?}");
        assert_eq!(stage.fired(), 1, "{fault:?}");
    }
}

#[test]
fn a_stalled_stage_ends_when_it_is_dropped() {
    let stage = FaultyTransform::new(Same).at(Call::Encode, 1, Fault::StallAfter(3));
    let mut coded = stage
        .encode(Box::new(Cursor::new("seven b")), &Coding::new(1))
        .unwrap();
    let thread = std::thread::spawn(move || coded.read_to_end(&mut Vec::new()));
    while stage.fired() == 0 {
        std::thread::yield_now();
    }
    assert!(!thread.is_finished());
    drop(stage);
    let error: Error = thread.join().unwrap().unwrap_err().into();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_crash_leaves_what_was_durable_and_stops_everything() {
    let mut left = Vec::new();
    for moment in 1.. {
        let (durable, crash) = (MemorySink::new(), Crash::at(moment));
        let (one, two) = (crash.over(durable.clone()), crash.over(MemorySink::new()));
        let work = async {
            put(&one, "a").await.unwrap();
            one.delete(&key("a").into()).await.unwrap();
        };
        tokio::select! {
            biased;
            () = work => break,
            () = crash.happened() => {}
        }
        assert_eq!(crash.fired(), 1);
        assert!(
            put(&two, "b").now_or_never().is_none(),
            "the other sink of a dead machine"
        );
        assert!(two.list(None).try_next().now_or_never().is_none());
        left.push(durable.stat(&key("a").into()).await.is_ok());
    }
    // Before the put, before it is durable, after; before the delete, after.
    assert_eq!(left, [false, false, true, true, false]);
}
