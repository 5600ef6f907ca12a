//! Targets that break one promise each.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::{assert_each_case_can_fail, panics_live};
use crate::testing::noise;
use crate::testing::source::SourceFixture;
use crate::testing::target::{self, TargetFixture};
use crate::{
    Error, ErrorKind, MemorySource, Occupancy, PartReader, RestoreOptions, Result, Source, Target,
};

crate::testing::target!(memory, async { Fixture::new(Sound) });
crate::testing::target!(piecemeal, async { Fixture::new(WritesAsItGoes) });

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    Sound,
    /// Says that it does not publish in one step, which is right.
    WritesAsItGoes,
    AsksLoudly,
    CallsItselfEmpty,
    ClaimsAtomicity,
    ForgetsItsTask,
    IgnoresOptions,
    KeepsHalf,
    KeepsTheOld,
    NamesDiffer,
    ShowsSecret,
    SkipsTheEnd,
    TakesAnyKind,
}

use Flaw::*;

#[derive(Clone)]
struct Fixture {
    target: Arc<TestTarget>,
}

impl Fixture {
    fn new(flaw: Flaw) -> Self {
        let target = TestTarget {
            flaw,
            parts: Mutex::default(),
            asked: AtomicUsize::new(0),
            running: Arc::default(),
            told: AtomicBool::new(false),
        };
        Self {
            target: Arc::new(target),
        }
    }
}

fn fingerprint(parts: &[(String, Bytes)]) -> String {
    let sum = |bytes: &Bytes| {
        bytes
            .iter()
            .fold(7u64, |s, b| s.wrapping_mul(31) + u64::from(*b))
    };
    let parts = parts
        .iter()
        .map(|(name, bytes)| format!("{name} {} {}", bytes.len(), sum(bytes)));
    parts.collect::<Vec<_>>().join(", ")
}

#[async_trait]
impl SourceFixture for Fixture {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(MemorySource::new(seeded()))
    }

    async fn seed(&self) -> String {
        fingerprint(&seeded())
    }

    async fn break_midway(&self) -> Arc<dyn Source> {
        unreachable!("no case of a target asks for it")
    }

    async fn leftovers(&self) -> Vec<String> {
        vec!["task".to_owned(); Arc::strong_count(&self.target.running) - 1]
    }

    fn secret(&self) -> Option<String> {
        Some("hunter2".to_owned())
    }
}

fn seeded() -> Vec<(String, Bytes)> {
    let parts = [
        ("a.dump", noise(600_000, 1)),
        ("b.empty", noise(0, 2)),
        ("c.tail", noise(10, 3)),
    ];
    parts.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}

#[async_trait]
impl TargetFixture for Fixture {
    fn target(&self) -> Arc<dyn Target> {
        Arc::clone(&self.target) as Arc<dyn Target>
    }

    async fn wipe(&self) {
        self.target.parts.lock().unwrap().clear();
    }

    async fn fingerprint(&self) -> String {
        fingerprint(&self.target.parts.lock().unwrap())
    }
}

struct TestTarget {
    flaw: Flaw,
    parts: Mutex<Vec<(String, Bytes)>>,
    asked: AtomicUsize,
    running: Arc<()>,
    told: AtomicBool,
}

#[async_trait]
impl Target for TestTarget {
    fn kind(&self) -> &str {
        if self.flaw == TakesAnyKind && !self.told.swap(true, Ordering::SeqCst) {
            return "stranger-to-everybody";
        }
        "memory"
    }

    async fn occupancy(&self) -> Result<Occupancy> {
        let mut parts = self.parts.lock().unwrap();
        match self.flaw {
            CallsItselfEmpty => return Ok(Occupancy::Empty),
            AsksLoudly => {
                let probe = self.asked.fetch_add(1, Ordering::SeqCst);
                parts.push((format!("probe-{probe}"), Bytes::new()));
                return Ok(match probe {
                    0 => Occupancy::Empty,
                    _ => Occupancy::Holds("probes".to_owned()),
                });
            }
            _ => {}
        }
        Ok(match parts.len() {
            0 => Occupancy::Empty,
            n => Occupancy::Holds(format!("{n} parts")),
        })
    }

    fn publishes_atomically(&self) -> bool {
        self.flaw != WritesAsItGoes
    }

    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        if let Some(name) = options.extra.keys().next()
            && self.flaw != IgnoresOptions
        {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("no option `{name}`"),
            ));
        }
        if self.flaw == ForgetsItsTask {
            let running = Arc::clone(&self.running);
            tokio::spawn(async move {
                let _running = running;
                std::future::pending::<()>().await;
            });
        }
        let as_it_goes = matches!(self.flaw, WritesAsItGoes | ClaimsAtomicity);
        let mut all = Vec::new();
        if self.flaw == KeepsTheOld {
            all.append(&mut self.parts.lock().unwrap().clone());
        }
        if as_it_goes {
            self.parts.lock().unwrap().clear();
        }
        for name in parts.names() {
            let mut data = parts.open(name).await?;
            let mut bytes = Vec::new();
            if as_it_goes {
                self.parts
                    .lock()
                    .unwrap()
                    .push((name.to_owned(), Bytes::new()));
            }
            while let Some(chunk) = data.next().await {
                match chunk {
                    Err(_) if self.flaw == SkipsTheEnd => break,
                    chunk => bytes.extend_from_slice(&chunk?),
                }
                if as_it_goes {
                    let so_far = Bytes::copy_from_slice(&bytes);
                    self.parts.lock().unwrap().last_mut().unwrap().1 = so_far;
                }
            }
            if self.flaw == KeepsHalf {
                bytes.truncate(bytes.len().div_ceil(2));
            }
            all.push((name.to_owned(), bytes.into()));
        }
        *self.parts.lock().unwrap() = all;
        Ok(())
    }
}

impl fmt::Display for TestTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.flaw {
            NamesDiffer => write!(f, "memory-{}", self.asked.fetch_add(1, Ordering::SeqCst)),
            ShowsSecret => f.write_str("memory://backup:hunter2@here"),
            _ => f.write_str("memory"),
        }
    }
}

impl fmt::Debug for TestTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestTarget({:?})", self.flaw)
    }
}

fn flaws_for(case: &str) -> &'static [Flaw] {
    match case {
        "a_backup_comes_back" => &[KeepsHalf, ForgetsItsTask],
        "occupancy_tells_and_changes_nothing" => &[CallsItselfEmpty, AsksLoudly],
        "an_occupied_target_is_replaced_only_by_name" => {
            &[CallsItselfEmpty, KeepsTheOld, NamesDiffer]
        }
        "a_backup_of_another_kind_is_refused" => &[TakesAnyKind],
        "an_unknown_option_is_unsupported" => &[IgnoresOptions],
        "no_failed_read_goes_unseen" => &[SkipsTheEnd, ClaimsAtomicity, ForgetsItsTask],
        "a_dropped_restore_publishes_nothing" => &[ClaimsAtomicity, ForgetsItsTask],
        "it_names_itself_without_secrets" => &[ShowsSecret],
        _ => &[],
    }
}

macro_rules! by_name {
    ([$($case:ident)*]) => {
        const CASES: &[&str] = &[$(stringify!($case)),*];

        async fn run(case: &str, fixture: &Fixture) {
            $(if case == stringify!($case) {
                return target::$case(fixture).await;
            })*
        }
    };
}
crate::__target_cases! { by_name {} }

#[test]
fn each_case_fails_on_a_broken_target() {
    let files = [include_str!("../target.rs")];
    assert_each_case_can_fail(CASES, &files, |case| {
        let broken = flaws_for(case).iter().map(|flaw| Fixture::new(*flaw));
        broken
            .map(|fixture| panics_live(run(case, &fixture)))
            .collect()
    });
}
