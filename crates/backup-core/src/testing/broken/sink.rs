//! Sinks that break one promise each.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{assert_each_case_can_fail, panics_async};
use crate::testing::faults::{Call, Fault, FaultySink};
use crate::testing::sink::{self, SinkFixture};
use crate::{
    ByteStream, Capabilities, Error, ErrorKind, Key, Locator, MemorySink, Object, PutOptions,
    Result, Sink, Swept, SystemClock,
};

crate::testing::sink!(memory, async { MemorySink::new() });
crate::testing::sink!(memory_with_lock, async {
    MemorySink::with_lock(SystemClock)
});
crate::testing::sink!(memory_with_versions, async {
    MemorySink::with_versions(SystemClock)
});
crate::testing::sink!(without_faults, async { FaultySink::new(MemorySink::new()) });

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    ChecksThenWrites,
    ClaimsKeys,
    ClaimsLocks,
    ClaimsVersions,
    ClampsRanges,
    DeletesByText,
    DeletesFolders,
    DropsLastByte,
    EmptyForMissing,
    HoldsAll,
    IgnoresLocks,
    InclusiveRanges,
    KeepsPartOfAFailedPut,
    KeepsSixteenMiB,
    LeavesTasksBehind,
    LowersCase,
    MissingIsAnError,
    NoNames,
    OneBodyAtATime,
    OtherKind,
    Overwrites,
    PrefixByText,
    RepeatsChildren,
    ShowsSecrets,
    StopsAtEmptyChunk,
    SweepsByName,
    SweepsForEver,
    SweepsPutsInFlight,
    WritesAsItGoes,
}

use Flaw::*;

#[derive(Clone)]
struct BrokenSink {
    inner: MemorySink,
    flaw: Flaw,
    claims: Arc<Mutex<BTreeSet<Key>>>,
    turn: Arc<AtomicU64>,
}

impl BrokenSink {
    fn fixture(flaw: Flaw) -> SinkFixture {
        SinkFixture::new(Self {
            inner: MemorySink::new(),
            flaw,
            claims: Arc::default(),
            turn: Arc::default(),
        })
        .secret("hunter2")
    }

    async fn replace(&self, key: &Key, bytes: impl Into<Bytes>) -> Result<Object> {
        self.inner.delete(&key.into()).await?;
        let data = ByteStream::from_bytes(bytes);
        self.inner.put(key, data, &PutOptions::default()).await
    }

    fn everything(&self) -> Vec<Object> {
        self.inner
            .list(None)
            .try_collect()
            .now_or_never()
            .unwrap()
            .unwrap()
    }
}

/// Stores what it has when it is dropped, as a program without temporary files does.
struct AsItGoes<'a>(&'a BrokenSink, Key, Vec<u8>);

impl Drop for AsItGoes<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.2);
        let _ = self.0.replace(&self.1, bytes).now_or_never();
    }
}

#[async_trait]
impl Sink for BrokenSink {
    async fn put(&self, key: &Key, mut data: ByteStream, options: &PutOptions) -> Result<Object> {
        let exists = self.inner.stat(&key.into()).await.is_ok();
        match self.flaw {
            ChecksThenWrites if !exists => {
                let bytes = data.collect(usize::MAX).await?;
                self.replace(key, bytes).await
            }
            ClaimsKeys => {
                if !self.claims.lock().unwrap().insert(key.clone()) {
                    return Err(Error::new(ErrorKind::AlreadyExists, "claimed"));
                }
                self.inner.put(key, data, options).await
            }
            DropsLastByte => {
                let bytes = data.collect(usize::MAX).await?;
                let less = bytes.slice(..bytes.len().saturating_sub(1));
                let mut object = self.replace(key, less).await?;
                object.len = bytes.len() as u64;
                Ok(object)
            }
            HoldsAll => {
                let chunks: Vec<Bytes> = data.try_collect().await?;
                self.replace(key, chunks.concat()).await
            }
            ClaimsLocks | IgnoresLocks => {
                let mut object = self.inner.put(key, data, &PutOptions::default()).await?;
                object.lock_until = options.retain_until;
                Ok(object)
            }
            KeepsPartOfAFailedPut => {
                let mut part = Vec::new();
                while let Some(chunk) = data.next().await {
                    match chunk {
                        Ok(chunk) => part.extend_from_slice(&chunk),
                        Err(error) => {
                            self.replace(key, part).await?;
                            return Err(error);
                        }
                    }
                }
                self.replace(key, part).await
            }
            KeepsSixteenMiB => {
                let bytes = data.collect(usize::MAX).await?;
                let mut object = self
                    .replace(key, bytes.slice(..bytes.len().min(16 << 20)))
                    .await?;
                object.len = bytes.len() as u64;
                Ok(object)
            }
            LeavesTasksBehind => {
                let (inner, key, options) = (self.inner.clone(), key.clone(), options.clone());
                tokio::spawn(async move { inner.put(&key, data, &options).await })
                    .await
                    .unwrap()
            }
            LowersCase => {
                let key = Key::parse(key.as_str().to_lowercase()).unwrap();
                self.inner.put(&key, data, options).await
            }
            OtherKind => {
                let outcome = self.inner.put(key, data, options).await;
                outcome.map_err(|error| Error::new(ErrorKind::Sink, "put").with_source(error))
            }
            Overwrites => {
                let bytes = data.collect(usize::MAX).await?;
                self.replace(key, bytes).await
            }
            StopsAtEmptyChunk => {
                let mut chunks = Vec::new();
                while let Some(chunk) = data.next().await.transpose()?.filter(|c| !c.is_empty()) {
                    chunks.push(chunk);
                }
                self.replace(key, chunks.concat()).await
            }
            SweepsPutsInFlight => {
                let turn = self.turn.load(Ordering::SeqCst);
                let bytes = data.collect(usize::MAX).await?;
                if turn != self.turn.load(Ordering::SeqCst) {
                    return Err(Error::new(ErrorKind::Other, "no such upload"));
                }
                self.replace(key, bytes).await
            }
            WritesAsItGoes => {
                let mut part = AsItGoes(self, key.clone(), Vec::new());
                while let Some(chunk) = data.next().await {
                    part.2.extend_from_slice(&chunk?);
                }
                drop(part);
                self.inner.stat(&key.into()).await
            }
            _ => self.inner.put(key, data, options).await,
        }
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        let range = match (range, self.flaw) {
            (Some(range), InclusiveRanges) => Some(range.start..range.end + 1),
            (Some(range), ClampsRanges) => {
                let end = range.end.min(self.inner.stat(at).await?.len);
                Some(range.start.min(end)..end)
            }
            (range, _) => range,
        };
        match (self.inner.get(at, range).await, self.flaw) {
            (Err(_), EmptyForMissing) => Ok(ByteStream::from_bytes("")),
            (Err(error), NoNames) => Err(Error::new(error.kind(), "not found")),
            (Ok(body), OneBodyAtATime) => {
                let turn = self.turn.fetch_add(1, Ordering::SeqCst) + 1;
                let now = Arc::clone(&self.turn);
                Ok(ByteStream::new(body.map(move |chunk| {
                    if now.load(Ordering::SeqCst) == turn {
                        chunk
                    } else {
                        Err(Error::new(
                            ErrorKind::Unavailable,
                            "the connection is in use",
                        ))
                    }
                })))
            }
            (outcome, _) => outcome,
        }
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        self.inner.stat(at).await
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        match self.flaw {
            MissingIsAnError => drop(self.inner.stat(at).await?),
            DeletesByText | DeletesFolders => {
                let below = format!("{}/", at.key);
                let prefix = if self.flaw == DeletesFolders {
                    &below
                } else {
                    at.key.as_str()
                };
                for object in self.everything() {
                    if object.key.as_str().starts_with(prefix) {
                        self.inner.delete(&object.locator()).await?;
                    }
                }
            }
            _ => {}
        }
        self.inner.delete(at).await
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        if self.flaw != PrefixByText {
            return self.inner.list(prefix);
        }
        let prefix = prefix.map_or("", Key::as_str);
        let mut objects = self.everything();
        objects.retain(|object| object.key.as_str().starts_with(prefix));
        stream::iter(objects.into_iter().map(Ok)).boxed()
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        if self.flaw != RepeatsChildren {
            return self.inner.children(prefix);
        }
        let depth = prefix.map_or(0, |prefix| prefix.as_str().split('/').count());
        let segment =
            move |object: Object| object.key.as_str().split('/').nth(depth).map(str::to_owned);
        self.inner
            .list(prefix)
            .try_filter_map(move |object| std::future::ready(Ok(segment(object))))
            .boxed()
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.inner.versions(prefix)
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        match self.flaw {
            SweepsByName => {
                for object in self.everything() {
                    if object.key.name().contains("tmp") {
                        self.inner.delete(&object.locator()).await?;
                    }
                }
            }
            SweepsForEver => {
                return Ok(Swept {
                    objects: 1,
                    bytes: 0,
                });
            }
            SweepsPutsInFlight => {
                self.turn.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
        self.inner.sweep(older_than).await
    }

    fn capabilities(&self) -> Capabilities {
        match self.flaw {
            ClaimsLocks => self.inner.capabilities().with_lock(),
            ClaimsVersions => self.inner.capabilities().with_versions(),
            _ => self.inner.capabilities(),
        }
    }
}

impl fmt::Display for BrokenSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flaw {
            ShowsSecrets => f.write_str("https://backup:hunter2@host"),
            _ => f.write_str("broken"),
        }
    }
}

impl fmt::Debug for BrokenSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokenSink({:?})", self.flaw)
    }
}

fn lying(call: Call, fault: Fault) -> SinkFixture {
    FaultySink::new(MemorySink::new())
        .from(call, 1, fault)
        .into()
}

fn broken_for(case: &str) -> Vec<SinkFixture> {
    let flaws: &[Flaw] = match case {
        "objects_come_back" => &[DropsLastByte],
        "large_objects_come_back" => &[KeepsSixteenMiB],
        "chunks_may_have_any_size" => &[StopsAtEmptyChunk],
        "ranges_are_half_open" => &[InclusiveRanges],
        "a_range_beyond_the_end_is_invalid" => &[ClampsRanges],
        "bodies_do_not_disturb_each_other" => &[OneBodyAtATime],
        "put_refuses_to_overwrite" => &[Overwrites],
        "of_concurrent_puts_one_wins" => &[Overwrites, ChecksThenWrites],
        "a_failed_stream_comes_back_and_leaves_nothing" => {
            &[KeepsPartOfAFailedPut, OtherKind, WritesAsItGoes]
        }
        "a_dropped_put_leaves_nothing" => &[WritesAsItGoes],
        "a_dropped_put_lets_go_of_its_data" => &[LeavesTasksBehind],
        "a_put_dropped_at_any_moment_is_whole_or_absent" => &[WritesAsItGoes],
        "an_abandoned_key_can_be_put_again" => &[ClaimsKeys],
        "keys_keep_their_spelling" => &[LowersCase],
        "list_goes_by_whole_segments" => &[PrefixByText],
        "children_are_the_next_segments" => &[RepeatsChildren],
        "versions_show_what_list_shows" => &[ClaimsVersions],
        "stat_agrees_with_put_and_list" => &[ClaimsVersions],
        "what_is_missing_is_not_found" => &[EmptyForMissing, NoNames],
        "a_folder_is_no_object" => &[DeletesFolders],
        "delete_removes_one_object" => &[DeletesByText],
        "deleting_what_is_missing_is_ok" => &[MissingIsAnError],
        "a_lock_is_honoured_or_refused" => &[IgnoresLocks, ClaimsLocks],
        "sweep_leaves_objects_alone" => &[SweepsByName],
        "sweep_spares_a_put_in_flight" => &[SweepsPutsInFlight],
        "sweep_removes_what_abandoned_puts_left" => &[SweepsForEver],
        "put_holds_no_more_than_it_declares" => &[HoldsAll],
        "it_names_itself_and_shows_no_secret" => &[ShowsSecrets],
        _ => &[],
    };
    let mut broken: Vec<_> = flaws
        .iter()
        .map(|flaw| BrokenSink::fixture(*flaw))
        .collect();
    match case {
        "objects_come_back" => {
            broken.push(lying(Call::Put, Fault::Flip(0)));
            broken.push(lying(Call::Put, Fault::Pretend));
            broken.push(lying(Call::Get, Fault::Cut(1)));
        }
        "listings_go_beyond_a_thousand" => {
            for call in [Call::List, Call::Children, Call::Versions] {
                broken.push(lying(call, Fault::Cut(1_000)));
            }
        }
        "versions_show_what_list_shows" => broken.push(lying(Call::Versions, Fault::Pretend)),
        "stat_agrees_with_put_and_list" => {
            for call in [Call::Put, Call::Stat, Call::List] {
                broken.push(lying(call, Fault::WrongLength));
            }
        }
        "delete_removes_one_object" => broken.push(lying(Call::Delete, Fault::Pretend)),
        "sweep_removes_what_abandoned_puts_left" => {
            broken.push(SinkFixture::new(MemorySink::new()).leftovers(|| 1));
        }
        _ => {}
    }
    broken
}

macro_rules! by_name {
    ([$($case:ident)*]) => {
        const CASES: &[&str] = &[$(stringify!($case)),*];

        async fn run(case: &str, fixture: &SinkFixture) {
            $(if case == stringify!($case) {
                return sink::$case(fixture).await;
            })*
        }
    };
}
crate::__sink_cases! { by_name {} }

#[test]
fn each_case_fails_on_a_broken_sink() {
    let files = [
        include_str!("../sink/atomic.rs"),
        include_str!("../sink/content.rs"),
        include_str!("../sink/naming.rs"),
        include_str!("../sink/upkeep.rs"),
    ];
    assert_each_case_can_fail(CASES, &files, |case| {
        let broken = broken_for(case);
        broken
            .iter()
            .map(|fixture| panics_async(run(case, fixture)))
            .collect()
    });
}
