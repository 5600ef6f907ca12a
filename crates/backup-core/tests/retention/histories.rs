//! Made-up histories.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use backup_core::Id;
use backup_core::retention::{
    Entry, Limits, Plan, PolicySpec, RetentionPolicy, Span, Verdict, decide,
};
use proptest::prelude::*;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn at(text: &str) -> SystemTime {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

/// An id that nothing random is in.
pub(crate) fn id(time: SystemTime, n: u64) -> Id {
    let stamp = backup_core::Stamp::from(time).compact();
    format!("{stamp}-{n:08x}").parse().unwrap()
}

pub(crate) fn entry(n: u64, time: SystemTime) -> Entry {
    Entry::new(id(time, n), n, time)
}

/// One backup per step, the last at `end`.
pub(crate) fn every(step: Duration, count: u32, end: SystemTime) -> Vec<Entry> {
    (0..count)
        .map(|i| entry(u64::from(i) + 1, end - step * (count - 1 - i)))
        .collect()
}

pub(crate) fn spec(json: &str) -> PolicySpec {
    serde_json::from_str(json).unwrap()
}

/// No limit on how much goes at once: what is tested is who goes.
pub(crate) fn open() -> Limits {
    Limits::default().share(100)
}

pub(crate) fn plan(json: &str, history: &[Entry], now: SystemTime) -> Plan {
    decide(&spec(json).build().unwrap(), history, now, &open())
}

pub(crate) fn deleted(plan: &Plan) -> Vec<Id> {
    plan.deletable()
        .unwrap()
        .iter()
        .map(|entry| entry.id.clone())
        .collect()
}

/// What a plan says, in the oracle's words, by id. Entries that share an id say the same.
pub(crate) fn said(plan: &Plan) -> BTreeMap<Id, String> {
    let say = |verdict: &Verdict| match verdict {
        Verdict::Keep(reasons) => {
            assert!(!reasons.is_empty());
            let mut reasons: Vec<String> = reasons
                .iter()
                .map(ToString::to_string)
                .filter(|reason| !reason.starts_with("locked until "))
                .collect();
            reasons.sort();
            reasons.join(", ")
        }
        Verdict::Delete(_) => "delete".to_owned(),
        Verdict::Deferred { .. } => "deferred".to_owned(),
        Verdict::Incomplete => "incomplete".to_owned(),
        other => panic!("{other:?}"),
    };
    plan.entries
        .iter()
        .map(|entry| (entry.id.clone(), say(&entry.verdict)))
        .collect()
}

/// What is left when a plan was carried out.
pub(crate) fn apply(plan: &Plan, history: &[Entry]) -> Vec<Entry> {
    let gone = deleted(plan);
    history
        .iter()
        .filter(|entry| !gone.contains(&entry.id))
        .cloned()
        .collect()
}

prop_compose! {
    /// Any policy that can be written, weighted towards several keys at once.
    pub(crate) fn specs()(
        counts in proptest::collection::vec(proptest::option::weighted(0.4, 1u32..6), 7),
        within in proptest::option::weighted(0.2, 1u64..2000),
        window in proptest::option::weighted(0.2, 1u64..2000),
        forever in proptest::bool::weighted(0.02),
        zone in proptest::option::of(proptest::sample::select(vec![
            "UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York",
        ])),
        keep_oldest in proptest::bool::weighted(0.3),
        calendar in proptest::bool::weighted(0.3),
    ) -> PolicySpec {
        let span = |hours: Option<u64>| hours.map(|hours| Span::from(Duration::from_secs(hours * 3600)));
        let mut spec = PolicySpec {
            hourly: counts[0],
            daily: counts[1],
            weekly: counts[2],
            monthly: counts[3],
            yearly: counts[4],
            last: counts[5],
            days: counts[6],
            within: span(within),
            window: span(window),
            forever,
            ..PolicySpec::default()
        };
        if counts[..5].iter().any(Option::is_some) {
            spec.timezone = zone.map(str::to_owned);
            spec.keep_oldest = keep_oldest;
            spec.calendar = calendar;
        }
        if spec.build().is_err() {
            spec.daily = Some(3);
        }
        spec
    }
}

/// One more backup: how long after the one before (steps back are a clock set back), and what
/// is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    minutes: i64,
    kind: u8,
    link: usize,
    length: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let minutes = prop_oneof![
        4 => 1i64..240,
        8 => 600i64..3000,
        3 => 9_000i64..50_000,
        1 => -200_000i64..0,
        1 => 200_000i64..800_000,
        1 => Just(0i64),
    ];
    let step =
        (minutes, any::<u8>(), 0usize..8, 0u64..300).prop_map(|(minutes, kind, link, length)| {
            Step {
                minutes,
                kind,
                link,
                length,
            }
        });
    proptest::collection::vec(step, 0..50)
}

prop_compose! {
    /// Any history: chains, forks, twins, holds, locks, failures, gaps, wrong clocks.
    pub(crate) fn histories()(steps in steps(), start in 0u64..(2 * 366 * 24 * 60)) -> Vec<Entry> {
        let mut time = at("2024-12-01T00:00:00Z") + Duration::from_secs(start * 60);
        let mut sequence = 0;
        let mut history: Vec<Entry> = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            let by = Duration::from_secs(step.minutes.unsigned_abs() * 60);
            time = if step.minutes < 0 { time - by } else { time + by };
            let fork = step.kind % 29 == 0;
            sequence += u64::from(!fork);
            let known = |back: usize| history.iter().rev().nth(back).map(|entry| entry.id.clone());
            let mut entry = Entry::new(id(time, n as u64), sequence, time)
                .finished(time + Duration::from_secs(step.length * 60))
                .bytes(step.length);
            match step.kind % 16 {
                0 | 1 => entry = Entry::incomplete(entry.id),
                2 | 3 => entry = entry.parent(known(0)),
                4 => entry = entry.parent(known(step.link)),
                5 => entry = entry.needs([known(step.link), known(0), known(1)].into_iter().flatten()),
                6 => entry = entry.parent(id(time, 0xffff)),
                7 => entry = entry.verified(time),
                8 => entry = entry.verified(time).proven(time),
                9 if step.link < 3 => entry = entry.held("audit".to_owned()),
                10 if step.link < 4 => entry = entry.locked_until(time + DAY * 60),
                11 if step.link == 0 => entry.parent = Some(entry.id.clone()),
                12 if step.link == 0 => entry.id = known(1).unwrap_or(entry.id),
                _ => {}
            }
            history.push(entry);
        }
        // A circle.
        if let [first, .., last] = &mut history[..]
            && steps[0].link == 1
        {
            first.parent = Some(last.id.clone());
            last.parent = Some(first.id.clone());
        }
        history
    }
}

prop_compose! {
    /// Any history and a clock: right, behind or ahead of it by up to ten years.
    pub(crate) fn cases()(
        history in histories(),
        spec in specs(),
        hours in prop_oneof![
            3 => 0i64..48,
            1 => -2000i64..2000,
            1 => -87_600i64..87_600,
        ],
        max_run in proptest::option::weighted(0.3, 1u32..100),
    ) -> Case {
        let last = history.iter().map(|entry| entry.time).max().unwrap_or(at("2026-01-01T00:00:00Z"));
        let by = Duration::from_secs(hours.unsigned_abs() * 3600);
        let now = if hours < 0 { last - by } else { last + by };
        Case { history, spec, now, max_run: max_run.map(|hours| HOUR * hours) }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub history: Vec<Entry>,
    pub spec: PolicySpec,
    pub now: SystemTime,
    pub max_run: Option<Duration>,
}

impl Case {
    pub(crate) fn limits(&self) -> Limits {
        match self.max_run {
            Some(max_run) => open().incrementals(true).max_run(max_run),
            None => open(),
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        self.plan_of(&self.history)
    }

    pub(crate) fn plan_of(&self, history: &[Entry]) -> Plan {
        decide(&self.policy(), history, self.now, &self.limits())
    }

    pub(crate) fn policy(&self) -> std::sync::Arc<dyn RetentionPolicy> {
        self.spec.build().unwrap()
    }
}
