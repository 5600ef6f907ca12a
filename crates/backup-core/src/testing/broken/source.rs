//! Sources that break one promise each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;

use super::{assert_each_case_can_fail, panics_live};
use crate::testing::faults::{Fault, FaultySource};
use crate::testing::noise;
use crate::testing::source::{self, SourceFixture};
use crate::{
    ByteStream, Error, ErrorKind, Facts, MemorySource, PartWriter, Request, RestoreStep, Result,
    Source, StockCommand,
};

crate::testing::source!(memory, async { Memory });

/// The fixture of a [`MemorySource`], as a plugin would write it.
struct Memory;

fn parts() -> MemorySource {
    let parts = [
        ("db.dump", noise(3 << 20, 1)),
        ("empty", noise(0, 2)),
        ("odd-_+.0", noise(1, 3)),
    ];
    MemorySource::new(parts).facts(Facts::new().with("entries", 3))
}

#[async_trait]
impl SourceFixture for Memory {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(parts())
    }

    async fn seed(&self) -> String {
        format!("{} bytes", 3 << 20)
    }

    async fn break_midway(&self) -> Arc<dyn Source> {
        Arc::new(FaultySource::new(parts()).at(1, Fault::FailAfter(1 << 20, ErrorKind::Source)))
    }

    async fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    BlamesTheSink,
    BreaksBeforeItBegins,
    EndsWhenItBreaks,
    ForgetsItsTask,
    HasStrayStep,
    HidesSinkErrors,
    IsShouting,
    NeverTheSame,
    ShowsSecret,
    SpellsSecretInFacts,
    WritesInDroves,
    WritesNothing,
}

use Flaw::*;

/// One part of a few MiB.
#[derive(Clone)]
struct Broken {
    flaw: Flaw,
    broken: bool,
    turn: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Broken {
    fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            broken: false,
            turn: Arc::default(),
            open: Arc::default(),
        }
    }
}

/// Something that a source opened on its server.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn open(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Source for Broken {
    fn kind(&self) -> &str {
        if self.flaw == IsShouting {
            "BROKEN"
        } else {
            "broken"
        }
    }

    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        let slot = Slot::open(&self.open);
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        let bytes = noise(3 << 20, 1);
        let mut data = ByteStream::from_bytes(bytes.clone());
        if self.broken {
            let kind = if self.flaw == BlamesTheSink {
                ErrorKind::Sink
            } else {
                ErrorKind::Source
            };
            let error = Error::new(kind, "pg_dump exited 1");
            match self.flaw {
                BreaksBeforeItBegins => return Err(error),
                EndsWhenItBreaks => data = ByteStream::from_bytes(bytes.slice(..1_000)),
                _ => {
                    let start = ByteStream::from_bytes(bytes.slice(..1_000));
                    data = ByteStream::new(start.chain(ByteStream::fail(error)));
                }
            }
        }
        match self.flaw {
            ForgetsItsTask => {
                tokio::spawn(async move {
                    let _slot = slot;
                    std::future::pending::<()>().await;
                });
            }
            HidesSinkErrors => {
                // Hangs on, in the belief that the sink will come back.
                if out.write("db.dump", data).await.is_err() {
                    std::future::pending::<()>().await;
                }
                return Ok(Facts::new());
            }
            WritesNothing => return Ok(Facts::new()),
            NeverTheSame => {
                out.write(&format!("db-{turn}"), data).await?;
                return Ok(Facts::new());
            }
            _ => {}
        }
        out.write("db.dump", data).await?;
        Ok(match self.flaw {
            SpellsSecretInFacts => Facts::new().with("url", "postgres://backup:hunter2@db"),
            _ => Facts::new(),
        })
    }

    fn parts_at_once(&self) -> usize {
        if self.flaw == WritesInDroves {
            10_000
        } else {
            1
        }
    }

    fn restore_steps(&self) -> Vec<RestoreStep> {
        let part = if self.flaw == HasStrayStep {
            "other"
        } else {
            "db.dump"
        };
        vec![RestoreStep {
            part: part.to_owned(),
            what: "load".to_owned(),
            command: StockCommand::new(["pg_restore", "-d", "$DB"]),
            tools: Vec::new(),
        }]
    }
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret = if self.flaw == ShowsSecret {
            "hunter2"
        } else {
            "_"
        };
        write!(f, "Broken({:?}, {secret})", self.flaw)
    }
}

struct Fixture(Broken);

#[async_trait]
impl SourceFixture for Fixture {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.0.clone())
    }

    async fn seed(&self) -> String {
        String::new()
    }

    async fn break_midway(&self) -> Arc<dyn Source> {
        let mut source = self.0.clone();
        source.broken = true;
        Arc::new(source)
    }

    async fn leftovers(&self) -> Vec<String> {
        vec!["slot".to_owned(); self.0.open.load(Ordering::SeqCst)]
    }

    fn secret(&self) -> Option<String> {
        Some("hunter2".to_owned())
    }
}

fn flaws_for(case: &str) -> &'static [Flaw] {
    match case {
        "a_backup_is_complete_and_verifies" => &[WritesNothing, ForgetsItsTask],
        "a_backup_can_be_repeated" => &[NeverTheSame],
        "restore_steps_name_the_parts" => &[HasStrayStep],
        "it_declares_itself" => &[IsShouting, WritesInDroves],
        "no_secret_shows" => &[ShowsSecret, SpellsSecretInFacts],
        "a_source_that_breaks_commits_nothing" => &[
            EndsWhenItBreaks,
            BlamesTheSink,
            BreaksBeforeItBegins,
            ForgetsItsTask,
        ],
        "a_failing_sink_ends_the_backup" => &[HidesSinkErrors, ForgetsItsTask],
        "a_dropped_backup_leaves_nothing_behind" => &[ForgetsItsTask],
        _ => &[],
    }
}

macro_rules! by_name {
    ([$($case:ident)*]) => {
        const CASES: &[&str] = &[$(stringify!($case)),*];

        async fn run(case: &str, fixture: &Fixture) {
            $(if case == stringify!($case) {
                return source::$case(fixture).await;
            })*
        }
    };
}
crate::__source_cases! { by_name {} }

#[test]
fn each_case_fails_on_a_broken_source() {
    let files = [include_str!("../source.rs")];
    assert_each_case_can_fail(CASES, &files, |case| {
        let broken = flaws_for(case)
            .iter()
            .map(|flaw| Fixture(Broken::new(*flaw)));
        broken
            .map(|fixture| panics_live(run(case, &fixture)))
            .collect()
    });
}
