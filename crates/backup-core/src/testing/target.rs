//! What every [`Target`] must do, one public function for each case.

use std::sync::Arc;

use async_trait::async_trait;

use super::eventually;
use super::faults::{Call, Fault, FaultySink};
use super::source::{SourceFixture, assert_nothing_left, job};
use crate::{
    ByteStream, ErrorKind, Facts, Id, Job, Key, MemorySink, Occupancy, PartWriter, Request,
    RestoreOptions, RestoreRequest, Result, RunOptions, Source, Target,
};

/// A place to restore into, and the store whose backups go there. One for each case.
#[async_trait]
pub trait TargetFixture: SourceFixture {
    /// The target under test. It may be the seeded store itself, once it was wiped.
    fn target(&self) -> Arc<dyn Target>;

    /// Makes the target as empty as a new one.
    async fn wipe(&self);

    /// A fingerprint of what the target holds now.
    async fn fingerprint(&self) -> String;
}

/// The cases, once: for the macro that makes tests of them and for the kit's own test.
#[doc(hidden)]
#[macro_export]
macro_rules! __target_cases {
    ($then:path { $($arguments:tt)* }) => {
        $then! { [
            a_backup_comes_back
            occupancy_tells_and_changes_nothing
            an_occupied_target_is_replaced_only_by_name
            a_backup_of_another_kind_is_refused
            an_unknown_option_is_unsupported
            no_failed_read_goes_unseen
            a_dropped_restore_publishes_nothing
            it_names_itself_without_secrets
        ] $($arguments)* }
    };
}

/// A backup of the seeded store, and an empty target.
struct Backup {
    sink: MemorySink,
    id: Id,
    seeded: String,
}

impl Backup {
    async fn of(fixture: &dyn TargetFixture) -> Self {
        let seeded = fixture.seed().await;
        let sink = MemorySink::new();
        let report = job(fixture.source(), sink.clone())
            .run(RunOptions::default())
            .await;
        let id = report.expect("back up the seeded store").id;
        fixture.wipe().await;
        Self { sink, id, seeded }
    }

    fn job(&self, fixture: &dyn TargetFixture) -> Job {
        job(fixture.source(), self.sink.clone())
    }

    async fn restore(&self, fixture: &dyn TargetFixture) {
        let (job, target) = (self.job(fixture), fixture.target());
        let restored = job
            .restore(&self.id, &*target, RestoreRequest::default())
            .await;
        restored.expect("restore into an empty target");
    }
}

async fn assert_empty(fixture: &dyn TargetFixture, after: &str) {
    let occupancy = fixture.target().occupancy().await.expect("occupancy");
    assert_eq!(occupancy, Occupancy::Empty, "after {after}");
}

/// A backup that is restored into an empty target is the store that was backed up.
pub async fn a_backup_comes_back(fixture: &dyn TargetFixture) {
    let backup = Backup::of(fixture).await;
    backup.restore(fixture).await;
    assert_eq!(fixture.fingerprint().await, backup.seeded);
    assert_nothing_left(fixture).await;
}

/// `occupancy` tells an empty target from one that holds something, in words, and asking does no
/// harm.
pub async fn occupancy_tells_and_changes_nothing(fixture: &dyn TargetFixture) {
    let backup = Backup::of(fixture).await;
    assert_empty(fixture, "it was wiped").await;
    assert_empty(fixture, "it was asked").await;
    backup.restore(fixture).await;
    for _ in 0..2 {
        match fixture.target().occupancy().await.expect("occupancy") {
            Occupancy::Holds(what) => assert!(!what.trim().is_empty(), "it holds {what:?}"),
            Occupancy::Empty => panic!("a restored target calls itself empty"),
        }
    }
    assert_eq!(fixture.fingerprint().await, backup.seeded);
}

/// What a target holds is replaced, whole, for who repeats its name, and for nobody else.
pub async fn an_occupied_target_is_replaced_only_by_name(fixture: &dyn TargetFixture) {
    let backup = Backup::of(fixture).await;
    backup.restore(fixture).await;
    let (job, target) = (backup.job(fixture), fixture.target());
    let wrong = RestoreRequest::default().overwrite(format!("not {target}"));
    for request in [RestoreRequest::default(), wrong] {
        let outcome = job.restore(&backup.id, &*target, request).await;
        let error = outcome.expect_err("an occupied target was overwritten unasked");
        assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
        assert_eq!(fixture.fingerprint().await, backup.seeded);
    }
    let request = RestoreRequest::default().overwrite(target.to_string());
    let outcome = job.restore(&backup.id, &*target, request).await;
    outcome.expect("replace what the named target holds");
    assert_eq!(fixture.fingerprint().await, backup.seeded);
    assert_nothing_left(fixture).await;
}

/// A backup of another kind of store is refused before anything happens.
pub async fn a_backup_of_another_kind_is_refused(fixture: &dyn TargetFixture) {
    let backup = Backup::of(fixture).await;
    let (stranger, target) = (job(Stranger, MemorySink::new()), fixture.target());
    let report = stranger
        .run(RunOptions::default())
        .await
        .expect("back up a stranger");
    let outcome = stranger
        .restore(&report.id, &*target, RestoreRequest::default())
        .await;
    let error = outcome.expect_err("a backup of another kind was restored");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error:?}");
    assert_empty(fixture, "a refusal").await;
    assert_eq!(
        target.kind(),
        fixture.source().kind(),
        "its own backups are of its kind"
    );
    backup.restore(fixture).await;
}

/// A source of a kind that nobody else has.
#[derive(Debug)]
struct Stranger;

#[async_trait]
impl Source for Stranger {
    fn kind(&self) -> &str {
        "stranger-to-everybody"
    }

    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        out.write("strange", ByteStream::from_bytes("bytes"))
            .await?;
        Ok(Facts::new())
    }
}

/// An option that the target does not know is `Unsupported`, not ignored, and nothing is written.
pub async fn an_unknown_option_is_unsupported(fixture: &dyn TargetFixture) {
    let backup = Backup::of(fixture).await;
    let mut options = RestoreOptions::default();
    options
        .extra
        .insert("no_such_option".to_owned(), true.into());
    let request = RestoreRequest::default().options(options);
    let (job, target) = (backup.job(fixture), fixture.target());
    let outcome = job.restore(&backup.id, &*target, request).await;
    let error = outcome.expect_err("an unknown option was ignored");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(
        error.chain().contains("no_such_option"),
        "which option? {error:?}"
    );
    assert_empty(fixture, "a refusal").await;
}

/// Every read of a backup goes wrong in turn: another byte, or an error in the place of the end.
/// The restore fails each time; a target that publishes in one step is still empty.
pub async fn no_failed_read_goes_unseen(fixture: &dyn TargetFixture) {
    let backup = Backup::of(fixture).await;
    for fault in [Fault::Flip(0), Fault::LoseReply(ErrorKind::Unavailable)] {
        for nth in 1.. {
            fixture.wipe().await;
            let sink = FaultySink::new(backup.sink.clone()).at(Call::Get, nth, fault);
            let (job, target) = (job(fixture.source(), sink.clone()), fixture.target());
            let outcome = job
                .restore(&backup.id, &*target, RestoreRequest::default())
                .await;
            if sink.fired() == 0 && sink.calls(Call::Get) < nth {
                outcome.expect("restore without a fault");
                break;
            }
            if sink.fired() == 0 {
                // An empty object has no byte to flip.
                continue;
            }
            assert!(outcome.is_err(), "{fault:?} in read {nth} goes unseen");
            if target.publishes_atomically() {
                assert_empty(fixture, "a failed read").await;
            }
            assert_nothing_left(fixture).await;
        }
    }
    assert_eq!(fixture.fingerprint().await, backup.seeded);
}

/// When a restore is given up, while a part does not go on, what the target opened ends; one that
/// publishes in one step is still empty.
pub async fn a_dropped_restore_publishes_nothing(fixture: &dyn TargetFixture) {
    let backup = Backup::of(fixture).await;
    for nth in 1.. {
        fixture.wipe().await;
        let stall = Fault::StallAfter(1);
        let sink = FaultySink::new(backup.sink.clone()).at(Call::Get, nth, stall);
        let (job, target) = (job(fixture.source(), sink.clone()), fixture.target());
        tokio::select! {
            outcome = job.restore(&backup.id, &*target, RestoreRequest::default()) => {
                outcome.expect("restore without a fault");
                if sink.calls(Call::Get) < nth {
                    break;
                }
            }
            () = stalls(&sink) => {
                if target.publishes_atomically() {
                    eventually("nothing is published", async || {
                        target.occupancy().await.expect("occupancy") == Occupancy::Empty
                    })
                    .await;
                }
            }
        }
        assert_nothing_left(fixture).await;
    }
}

async fn stalls(sink: &FaultySink<MemorySink>) {
    while sink.fired() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Its name is one line that can be repeated, its kind a name in lower case, and neither `Debug`
/// nor `Display` shows a password.
pub async fn it_names_itself_without_secrets(fixture: &dyn TargetFixture) {
    let target = fixture.target();
    let name = target.to_string();
    assert!(
        !name.is_empty() && name.trim() == name && !name.contains('\n'),
        "{name:?}"
    );
    Key::check(target.kind()).expect("its kind is a name");
    assert_eq!(
        target.kind(),
        target.kind().to_lowercase(),
        "kinds are lower case"
    );
    let shown = format!("{name} {target:?} {target:#?}");
    let secret = fixture.secret();
    assert!(
        !secret.is_some_and(|secret| shown.contains(&secret)),
        "a secret shows in {shown}"
    );
}
