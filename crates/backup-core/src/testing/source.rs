//! What every [`Source`] must do, one public function for each case.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;

use super::eventually;
use super::faults::{Call, Fault, FaultySink};
use crate::{
    Clock, ErrorKind, Event, Id, Job, Key, MemorySink, Object, Observer, Pipeline, RunOptions,
    Sink, Source, Status, SystemClock,
};

/// A store to be backed up: a server, a folder, a fake. One for each case.
#[async_trait]
pub trait SourceFixture: Send + Sync + 'static {
    /// Why there is nothing to test here: `needs LIFEBELT_PG15_URL`. Every case is passed over
    /// with that note. Where a server must not be missing, the fixture panics instead.
    fn missing(&self) -> Option<String> {
        None
    }

    /// The source under test, whole and well.
    fn source(&self) -> Arc<dyn Source>;

    /// Fills the store with data that is worth a test: odd names, empty things, and a few MiB so
    /// that a backup can break midway. Returns a fingerprint that differs if anything of it does;
    /// where there is a target too, the one that its
    /// [`fingerprint`](super::target::TargetFixture::fingerprint) must have after a restore.
    async fn seed(&self) -> String;

    /// A source of the seeded store that dies after its first bytes: its server is killed, its
    /// program exits with 1, its file shrinks.
    async fn break_midway(&self) -> Arc<dyn Source>;

    /// What backups or restores have left behind: children, replication slots, snapshots,
    /// temporary files. Empty where there is nothing to leave.
    async fn leftovers(&self) -> Vec<String>;

    /// A password that must show up nowhere.
    fn secret(&self) -> Option<String> {
        None
    }
}

impl fmt::Debug for dyn SourceFixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceFixture({:?})", self.source())
    }
}

/// The cases, once: for the macro that makes tests of them and for the kit's own test.
#[doc(hidden)]
#[macro_export]
macro_rules! __source_cases {
    ($then:path { $($arguments:tt)* }) => {
        $then! { [
            a_backup_is_complete_and_verifies
            a_backup_can_be_repeated
            restore_steps_name_the_parts
            it_declares_itself
            no_secret_shows
            a_source_that_breaks_commits_nothing
            a_failing_sink_ends_the_backup
            a_dropped_backup_leaves_nothing_behind
        ] $($arguments)* }
    };
}

/// A job that stores the bytes as they are, in one sink called `sink`.
pub(super) fn job(source: impl Source, sink: impl Sink) -> Job {
    let job = Job::builder("kit").source(source).sink("sink", sink);
    job.pipeline(Pipeline::unencrypted())
        .build()
        .expect("the kit's job is valid")
}

pub(super) async fn objects(sink: &impl Sink) -> Vec<Object> {
    sink.list(None).try_collect().await.expect("list")
}

async fn assert_nothing_committed(sink: &impl Sink) {
    let objects = objects(sink).await;
    let manifest = objects
        .iter()
        .find(|object| object.key.name() == "manifest.json");
    assert_eq!(manifest, None, "a backup that failed was committed");
}

pub(super) async fn assert_nothing_left(fixture: &dyn SourceFixture) {
    eventually("nothing is left behind", async || {
        let left = fixture.leftovers().await;
        left.iter()
            .for_each(|left| eprintln!("left behind: {left}"));
        left.is_empty()
    })
    .await;
}

/// A backup of the seeded store is complete, reads back right and holds something.
pub async fn a_backup_is_complete_and_verifies(fixture: &dyn SourceFixture) {
    fixture.seed().await;
    let job = job(fixture.source(), MemorySink::new());
    let report = job.run(RunOptions::default()).await.expect("back up");
    assert_eq!(report.status(), Status::Complete);
    assert!(report.plain_bytes > 0, "the seeded store has no bytes");
    for verification in job.verify(&report.id, None).await.expect("verify") {
        assert!(
            verification.problems.is_empty(),
            "{:?}",
            verification.problems
        );
    }
    assert_nothing_left(fixture).await;
}

/// A second backup of the same store works like the first and has parts of the same names.
pub async fn a_backup_can_be_repeated(fixture: &dyn SourceFixture) {
    fixture.seed().await;
    let job = job(fixture.source(), MemorySink::new());
    for round in ["first", "second"] {
        let outcome = job.run(RunOptions::default().label(round)).await;
        outcome.unwrap_or_else(|error| panic!("{round} backup: {error:?}"));
    }
    let mut names = Vec::new();
    for round in ["first", "second"] {
        let backup = job.find(round).await.expect("find the backup");
        let parts = backup.manifest.parts.iter().map(|part| part.name.clone());
        names.push(parts.collect::<BTreeSet<_>>());
    }
    assert_eq!(
        names[0], names[1],
        "the parts have other names the second time"
    );
}

/// Every step of [`Source::restore_steps`] reads a part that a backup has, or the one that builds on it,
/// with a command.
pub async fn restore_steps_name_the_parts(fixture: &dyn SourceFixture) {
    let source = fixture.source();
    let id = Id::new(SystemClock.now()).expect("an id");
    let state = std::env::temp_dir().join(format!("lifebelt-kit-{id}"));
    let job = Job::builder("kit")
        .source(Arc::clone(&source))
        .sink("sink", MemorySink::new())
        .pipeline(Pipeline::unencrypted())
        .incremental(source.incremental())
        .state_dir(&state)
        .build()
        .expect("the kit's job is valid");
    let mut parts = BTreeSet::new();
    for _ in 0..if source.incremental() { 2 } else { 1 } {
        fixture.seed().await;
        let report = job.run(RunOptions::default()).await.expect("back up");
        let backup = job.find(report.id.as_str()).await.expect("find the backup");
        parts.extend(backup.manifest.parts.iter().map(|part| part.name.clone()));
    }
    std::fs::remove_dir_all(&state).expect("remove the state");
    let steps = source.restore_steps();
    assert!(
        !steps.is_empty(),
        "no word on how its parts come back with stock tools"
    );
    for step in steps {
        let known = parts.iter().any(|part| step.fits(part));
        assert!(known, "a step for `{}`, which is no part", step.part);
        assert!(
            !step.what.is_empty() && !step.command.program().is_empty(),
            "{step:?}"
        );
    }
}

/// Its kind is a name in lower case, and it writes a handful of parts at once, not thousands.
pub async fn it_declares_itself(fixture: &dyn SourceFixture) {
    let source = fixture.source();
    Key::check(source.kind()).expect("its kind is a name");
    assert_eq!(
        source.kind(),
        source.kind().to_lowercase(),
        "kinds are lower case"
    );
    assert!(
        (1..=64).contains(&source.parts_at_once()),
        "{} parts",
        source.parts_at_once()
    );
}

/// A password shows neither in `Debug` nor in anything but the parts that a backup stores, nor in
/// the error of a backup that breaks.
pub async fn no_secret_shows(fixture: &dyn SourceFixture) {
    fixture.seed().await;
    let (sink, source) = (MemorySink::new(), fixture.source());
    let shown = format!("{source:?} {source:#?} {:?}", source.restore_steps());
    let job = job(source, sink.clone());
    let report = job.run(RunOptions::default()).await.expect("back up");
    let backup = job.find(report.id.as_str()).await.expect("find the backup");
    let parts: Vec<&Key> = backup
        .manifest
        .parts
        .iter()
        .flat_map(|p| &p.objects)
        .map(|o| &o.key)
        .collect();
    let mut texts = vec![shown];
    for object in objects(&sink).await {
        if !parts.contains(&&object.key) {
            let bytes = sink.get(&object.locator(), None).await.expect("get");
            let bytes = bytes.collect(usize::MAX).await.expect("read");
            texts.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    let broken = self::job(fixture.break_midway().await, MemorySink::new());
    texts.push(format!("{:?}", broken.run(RunOptions::default()).await));
    for text in texts {
        let secret = fixture.secret();
        assert!(
            !secret.is_some_and(|secret| text.contains(&secret)),
            "a secret shows in {text}"
        );
    }
}

/// A source that dies after its first bytes is an error, not of the sink, and no backup; it
/// leaves nothing behind, and the next backup is none the worse.
pub async fn a_source_that_breaks_commits_nothing(fixture: &dyn SourceFixture) {
    fixture.seed().await;
    let (sink, begun) = (MemorySink::new(), Arc::new(Begun::default()));
    let broken = Job::builder("kit")
        .source(fixture.break_midway().await)
        .pipeline(Pipeline::unencrypted())
        .sink("sink", sink.clone())
        .observer(vec![Arc::clone(&begun) as Arc<dyn Observer>])
        .build();
    let outcome = broken
        .expect("the kit's job is valid")
        .run(RunOptions::default())
        .await;
    let error = match outcome {
        Ok(report) => panic!("half a backup is {:?}", report.status()),
        Err(error) => error,
    };
    assert_ne!(
        error.kind(),
        ErrorKind::Sink,
        "the sink is blamed: {error:?}"
    );
    assert!(
        begun.0.load(Ordering::SeqCst) > 0,
        "it broke before its first part: {error:?}"
    );
    assert_nothing_committed(&sink).await;
    assert_nothing_left(fixture).await;
}

#[derive(Debug, Default)]
struct Begun(AtomicU64);

impl Observer for Begun {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::PartStarted { .. }) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// How long a source may take to notice that nobody takes its bytes. The kit's own tests, which
/// wait for it in vain, have a quick one.
const BOUND: Duration = Duration::from_secs(if cfg!(test) { 10 } else { 60 });

/// When the only sink fails the backup ends, in bounded time and without anything left behind,
/// and the sink is to blame.
pub async fn a_failing_sink_ends_the_backup(fixture: &dyn SourceFixture) {
    fixture.seed().await;
    for bytes in [0, 1_000] {
        let full = Fault::FailAfter(bytes, ErrorKind::Unavailable);
        let sink = FaultySink::new(MemorySink::new()).from(Call::Put, 1, full);
        let job = job(fixture.source(), sink.clone());
        let outcome = tokio::time::timeout(BOUND, job.run(RunOptions::default())).await;
        assert!(sink.fired() > 0, "the sink was never asked");
        let error = match outcome {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => panic!("a backup without a copy is a success"),
            Err(_) => panic!("it goes on for {BOUND:?} after its only sink failed"),
        };
        assert_eq!(error.kind(), ErrorKind::Sink, "{error:?}");
        assert_nothing_committed(&sink).await;
        assert_nothing_left(fixture).await;
    }
}

/// When a backup is given up, while its sink takes nothing more, everything that the source
/// opened ends, and nothing was committed.
pub async fn a_dropped_backup_leaves_nothing_behind(fixture: &dyn SourceFixture) {
    fixture.seed().await;
    let sink = FaultySink::new(MemorySink::new()).from(Call::Put, 1, Fault::StallAfter(1));
    let job = job(fixture.source(), sink.clone());
    tokio::select! {
        outcome = job.run(RunOptions::default()) => panic!("ended on a stalled sink: {outcome:?}"),
        () = eventually("the sink stalls", async || sink.fired() > 0) => {}
    }
    assert_nothing_left(fixture).await;
    assert_nothing_committed(&sink).await;
}
