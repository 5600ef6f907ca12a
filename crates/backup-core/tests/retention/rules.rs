//! The rules, by number. 14 and 15 are about carrying a plan out; here is what a plan says of
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup_core::retention::{
    Any, Entry, Limits, MAX_SKEW, Miss, Period, Plan, PolicySpec, Reason, Refusal, RetentionPolicy,
    Verdict, Warning, decide,
};
use backup_core::{ErrorKind, Id};
use proptest::prelude::*;

use crate::histories::*;
use crate::oracle;

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn reasons(plan: &Plan) -> BTreeMap<Id, Vec<Reason>> {
    plan.entries
        .iter()
        .map(|e| (e.id.clone(), e.reasons().to_vec()))
        .collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rule_01_plans_as_the_oracle_does(case in cases()) {
        let plan = case.plan();
        prop_assert_eq!(plan.entries.len(), case.history.len());
        let expected = oracle::verdicts(&case.spec, &case.history, case.now, case.max_run);
        for (entry, expected) in case.history.iter().zip(expected) {
            let said = &said(&plan)[&entry.id];
            let twins = "not the only one of its id";
            // Of entries that share an id it is enough that all stay.
            prop_assert!(*said == expected || said.contains(twins) && expected.contains(twins),
                "{}: {} and not {}", entry.id, said, expected);
        }
    }

    #[test]
    fn rule_01_order_does_not_matter(case in cases(), seed in any::<u64>()) {
        let mut shuffled = case.history.clone();
        shuffled.sort_by_key(|e| e.id.as_str().bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)));
        prop_assert_eq!(case.plan(), case.plan_of(&shuffled));
        prop_assert_eq!(case.plan(), case.plan());
    }

    #[test]
    fn rule_02_failures_change_nothing(case in cases(), failures in histories()) {
        let complete: Vec<Entry> = case.history.iter().filter(|e| e.complete).cloned().collect();
        let mut mixed = complete.clone();
        mixed.extend(failures.iter().enumerate().map(|(n, e)| {
            let mut failed = Entry::incomplete(id(e.time, 0x8000 + n as u64)).verified(e.time).parent(e.parent.clone());
            failed.sequence = e.sequence;
            failed
        }));
        let (before, after) = (said(&case.plan_of(&complete)), said(&case.plan_of(&mixed)));
        for (id, verdict) in &after {
            prop_assert_eq!(verdict, before.get(id).map_or("incomplete", String::as_str));
        }
    }

    #[test]
    fn rule_07_an_outage_deletes_nothing(case in cases(), days in 0u32..3650) {
        let last = case.history.iter().map(|e| e.time).max().unwrap_or(case.now);
        let plan_at = |now| decide(&case.policy(), &case.history, now, &open());
        // No more locks to end, no more stamps to come true.
        let end = last + DAY * 60;
        prop_assert_eq!(said(&plan_at(end)), said(&plan_at(end + DAY * days)));
    }

    #[test]
    fn rule_08_any_keeps_what_one_keeps(case in cases(), other in specs()) {
        let (a, b) = (case.policy(), other.build().unwrap());
        let any = Any::new(vec![Arc::clone(&a), Arc::clone(&b)]).unwrap();
        let plan = |policy: &dyn RetentionPolicy| {
            reasons(&decide(policy, &case.history, case.now, &open()))
        };
        let (any, a, b) = (plan(&any), plan(&a), plan(&b));
        for (id, any) in any {
            let text = |reasons: &[Reason]| reasons.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
            let both: BTreeSet<String> = text(&a[&id]).union(&text(&b[&id])).cloned().collect();
            prop_assert_eq!(text(&any), both);
        }
    }

    #[test]
    fn rule_08_a_deletion_names_what_has_its_place(case in cases()) {
        let plan = case.plan();
        let kept: BTreeSet<&Id> = plan.entries.iter().filter(|e| !e.reasons().is_empty()).map(|e| &e.id).collect();
        for entry in &plan.entries {
            let (Verdict::Delete(miss) | Verdict::Deferred { miss, .. }) = &entry.verdict else { continue };
            match miss.as_ref().unwrap() {
                Miss::Taken { reason, by } => {
                    prop_assert!(kept.contains(by));
                    let holder = plan.get(by).unwrap();
                    prop_assert!(holder.reasons().contains(reason), "{} of {:?}", reason, holder);
                }
                Miss::TooOld { begins, .. } => {
                    let own = case.history.iter().find(|e| e.id == entry.id).unwrap();
                    prop_assert!(own.time < *begins);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn rule_09_floors_stay_whatever_the_policy(case in cases()) {
        let plan = case.plan();
        let stays: BTreeSet<&Id> = plan.entries.iter()
            .filter(|e| !matches!(e.verdict, Verdict::Delete(_)))
            .map(|e| &e.id)
            .collect();
        let newest = |fits: &dyn Fn(&&Entry) -> bool| {
            case.history.iter().filter(|e| e.complete).filter(fits).max_by_key(|e| (e.sequence, e.id.clone()))
        };
        for floor in [
            newest(&|_| true),
            newest(&|e| e.verified.is_some()),
            newest(&|e| e.proven.is_some()),
        ].into_iter().flatten() {
            prop_assert!(!plan.get(&floor.id).unwrap().reasons().is_empty());
        }
        for entry in case.history.iter().filter(|e| stays.contains(&e.id)) {
            for need in entry.parent.iter().chain(&entry.needs) {
                let here = case.history.iter().any(|e| e.id == *need);
                prop_assert!(!entry.complete || !here || stays.contains(need), "{need}");
            }
        }
        for entry in &case.history {
            let held = entry.complete && entry.held.is_some();
            let locked = entry.locked_until.is_some_and(|until| until > case.now);
            prop_assert!(stays.contains(&entry.id) || !(held || locked || entry.time > case.now + MAX_SKEW));
        }
    }

    #[test]
    fn rule_11_a_new_backup_takes_one_place_of_each_rule(
        case in cases(),
        hours in 0u64..100_000,
        middle in proptest::bool::weighted(0.2),
    ) {
        // Only the policy's places: floors and chains have their own rule.
        let mut spec = PolicySpec { within: None, window: None, days: None, calendar: false, ..case.spec.clone() };
        if spec.build().is_err() {
            spec.daily = Some(3);
        }
        let history: Vec<Entry> = case.history.iter().filter(|e| e.complete)
            .map(|e| Entry::new(e.id.clone(), 2 * e.sequence, e.time)).collect();
        let now = history.iter().map(|e| e.time).max().unwrap_or(case.now);
        let newest = history.iter().map(|e| e.sequence).max().unwrap_or(0);
        let sequence = if middle { newest / 4 * 2 + 1 } else { newest + 1 };
        let time = now - HOUR * u32::try_from(hours).unwrap();
        let new = Entry::new(id(time, 0x9999), sequence, time);
        let mut more = history.clone();
        more.push(new.clone());
        let plan = |history: &[Entry]| reasons(&decide(&spec.build().unwrap(), history, now, &open()));
        let (before, after) = (plan(&history), plan(&more));

        let place = |reason: &Reason| match reason {
            Reason::Bucket { period, rank, of } => Some((Some(*period), *rank, *of)),
            Reason::Last { rank, of } => Some((None, *rank, *of)),
            _ => None,
        };
        let holders = |plan: &BTreeMap<Id, Vec<Reason>>, rule: Option<Period>| -> BTreeMap<Id, (u32, u32)> {
            plan.iter().flat_map(|(id, reasons)| {
                reasons.iter().filter_map(place).filter(|(p, ..)| *p == rule)
                    .map(|(_, rank, of)| (id.clone(), (rank, of)))
            }).collect()
        };
        for rule in [None, Some(Period::Hourly), Some(Period::Daily), Some(Period::Weekly), Some(Period::Monthly), Some(Period::Yearly)] {
            let (before, after) = (holders(&before, rule), holders(&after, rule));
            let lost: Vec<_> = before.iter().filter(|(id, _)| !after.contains_key(*id)).collect();
            let won: Vec<_> = after.iter().filter(|(id, _)| !before.contains_key(*id)).collect();
            prop_assert!(lost.len() <= 1, "{rule:?} lost {lost:?}");
            if let [(id, (rank, of))] = lost[..] {
                // Nobody but the new one gains by it, and what goes was in its bucket or last.
                let won: Vec<_> = won.iter().map(|(id, _)| *id).collect();
                prop_assert_eq!(won, [&new.id]);
                let old = history.iter().find(|e| e.id == *id).unwrap();
                let zone = jiff::tz::TimeZone::get(spec.timezone.as_deref().unwrap_or("UTC")).unwrap();
                let same_bucket = rule.is_some_and(|period| {
                    let bucket = |e: &Entry| oracle::bucket(&zone, &period.to_string(), e.time);
                    bucket(old) == bucket(&new)
                });
                prop_assert!(rank == of || same_bucket, "{:?}", lost);
            }
        }
        // And whoever goes has lost a place, or was the newest.
        for (id, reasons) in &before {
            if !reasons.is_empty() && after[id].is_empty() {
                prop_assert!(reasons.iter().all(|r| place(r).is_some() || *r == Reason::Latest));
            }
        }
    }

    #[test]
    fn rule_11_a_new_backup_costs_a_length_of_time_only_what_is_too_old(
        case in cases(),
        minutes in 0u64..1_000_000,
        hours in 1u32..3000,
    ) {
        let now = case.history.iter().map(|e| e.time).max().unwrap_or(case.now) + HOUR * 20_000;
        let newest = case.history.iter().map(|e| e.sequence).max().unwrap_or(0);
        let time = now - Duration::from_secs(minutes * 60);
        let mut more = case.history.clone();
        more.push(Entry::new(id(time, 0x9999), newest + 1, time));
        let length = HOUR * hours;
        let json = format!(r#"{{"within":"{hours}h"}}"#);
        let (before, after) = (plan(&json, &case.history, now), plan(&json, &more, now));
        for old in case.history.iter().filter(|e| e.complete) {
            let within = |plan: &Plan| {
                plan.get(&old.id).unwrap().reasons().contains(&Reason::Within(length.into()))
            };
            prop_assert!(!within(&before) || within(&after) || old.time < time - length);
        }
    }

    #[test]
    fn rule_12_planning_again_deletes_nothing_more(case in cases()) {
        let plan = case.plan();
        let left = apply(&plan, &case.history);
        let again = case.plan_of(&left);
        prop_assert_eq!(deleted(&again), Vec::<Id>::new());
        for entry in &again.entries {
            let deferred = |verdict: &Verdict| matches!(verdict, Verdict::Deferred { .. });
            prop_assert!(!deferred(&entry.verdict) || deferred(&plan.get(&entry.id).unwrap().verdict));
        }
    }

    #[test]
    fn rule_12_half_a_prune_changes_no_verdict_for_the_worse(case in cases(), share in 0usize..100) {
        let plan = case.plan();
        let gone: Vec<Id> = deleted(&plan);
        let gone = &gone[..gone.len() * share / 100];
        let left: Vec<Entry> = case.history.iter().filter(|e| !gone.contains(&e.id)).cloned().collect();
        let kept: Vec<&Id> = plan.entries.iter().filter(|e| !e.reasons().is_empty()).map(|e| &e.id).collect();
        for id in deleted(&case.plan_of(&left)) {
            prop_assert!(!kept.contains(&&id), "{id}");
        }
    }

    #[test]
    fn rule_13_a_size_cap_deletes_nothing(case in cases(), max in 0u64..5000) {
        let capped = decide(&case.policy(), &case.history, case.now, &case.limits().max_bytes(max));
        let plan = case.plan();
        prop_assert_eq!(&plan.entries, &capped.entries);
        prop_assert_eq!(&plan.refusals, &capped.refusals);
        let bytes: u64 = case.history.iter()
            .filter(|e| !matches!(plan.get(&e.id).unwrap().verdict, Verdict::Delete(_)))
            .map(|e| e.bytes).sum();
        let flagged = capped.warnings.contains(&Warning::TooLarge { bytes, max });
        prop_assert_eq!(flagged, bytes > max);
    }

    #[test]
    fn rule_14_an_incremental_goes_before_its_parent(case in cases()) {
        let mut history = case.history.clone();
        for i in 0..history.len() {
            history[i].sequence = i as u64;
            history[i].parent = (i % 7 != 0).then(|| history[i - 1].id.clone());
        }
        let order = deleted(&case.plan_of(&history));
        for entry in &history {
            let at = |id: &Id| order.iter().position(|gone| gone == id);
            if let (Some(own), Some(parent)) = (at(&entry.id), entry.parent.as_ref().and_then(at)) {
                prop_assert!(own < parent);
            }
        }
    }

    #[test]
    fn rule_15_locked_is_later_and_no_error(case in cases(), days in 1u32..90) {
        let until = case.now + DAY * days;
        let mut history = case.history.clone();
        for entry in &mut history {
            entry.locked_until = Some(until);
        }
        let locked = case.plan_of(&history);
        prop_assert_eq!(deleted(&locked), Vec::<Id>::new());
        for entry in &mut history {
            entry.locked_until = None;
        }
        let open = case.plan_of(&history);
        for (entry, locked) in open.entries.iter().zip(&locked.entries) {
            let later = match &entry.verdict {
                Verdict::Delete(miss) => Verdict::Deferred { until, miss: miss.clone() },
                Verdict::Keep(reasons) => {
                    let mut reasons = reasons.clone();
                    reasons.push(Reason::Locked(until));
                    Verdict::Keep(reasons)
                }
                other => other.clone(),
            };
            // A deferred incremental still needs its parents, which are then kept for it.
            let verdict = &locked.verdict;
            let for_chain = |r: &Reason| matches!(r, Reason::ParentOf(_) | Reason::NeededBy(_));
            let chain = matches!(verdict, Verdict::Keep(reasons) if reasons.iter().any(for_chain));
            prop_assert!(chain || *verdict == later, "{:?} {:?}", verdict, later);
        }
    }
}

#[test]
fn rule_01_is_total_at_the_ends_of_time() {
    let far = Duration::from_secs(i64::MAX as u64);
    let (first, last) = (SystemTime::UNIX_EPOCH - far, SystemTime::UNIX_EPOCH + far);
    let usual = at("2026-11-21T02:00:00Z");
    let named = |n, time| Entry::new(id(usual, n & 0xffff), n, time).finished(last);
    let history = [
        named(1, first),
        named(2, usual),
        named(3, last),
        named(u64::MAX, usual),
    ];
    for now in [first, usual, last] {
        for json in [
            r#"{"hourly":1,"daily":4294967295,"weekly":2,"monthly":2,"yearly":4294967295}"#,
            r#"{"hourly":4294967295,"calendar":true,"keep_oldest":true,"timezone":"Europe/Berlin"}"#,
            r#"{"days":4294967295,"timezone":"Pacific/Kiritimati"}"#,
            r#"{"last":4294967295,"within":"50000000y","window":"50000000y"}"#,
        ] {
            let limits = open()
                .incrementals(true)
                .max_run(Duration::MAX)
                .period(Duration::MAX);
            let policy = spec(json).build().unwrap();
            for history in [&history[..], &[]] {
                let plan = decide(&policy, history, now, &limits);
                assert_eq!(plan.entries.len(), history.len());
            }
        }
    }
}

#[test]
fn rule_03_a_day_of_the_zone_is_one_bucket_however_long() {
    for (zone, noon) in [
        ("Europe/Berlin", "2026-03-29T12:00:00Z"),
        ("Europe/Berlin", "2026-10-25T12:00:00Z"),
        ("America/New_York", "2026-03-08T12:00:00Z"),
        ("America/New_York", "2026-11-01T12:00:00Z"),
        ("Asia/Kathmandu", "2026-06-01T12:00:00Z"),
    ] {
        let zone_of = jiff::tz::TimeZone::get(zone).unwrap();
        let history = every(HOUR / 4, 4 * 24 * 5, at(noon) + 2 * DAY);
        let now = history.last().unwrap().time;
        let plan = plan(
            &format!(r#"{{"daily":4,"timezone":"{zone}"}}"#),
            &history,
            now,
        );
        let mut days = BTreeSet::new();
        for kept in plan.entries.iter().filter(|e| !e.reasons().is_empty()) {
            let time = jiff::Timestamp::try_from(kept.id.time()).unwrap();
            let next = jiff::Timestamp::try_from(kept.id.time() + HOUR / 4).unwrap();
            let day = |t: jiff::Timestamp| t.to_zoned(zone_of.clone()).date();
            assert!(days.insert(day(time)), "{zone}: two of {}", day(time));
            assert!(
                day(next) > day(time) || kept.sequence == 480,
                "{zone}: the last of its day"
            );
        }
        assert_eq!(days.len(), 4, "{zone}");
    }
}

#[test]
fn rule_04_a_week_is_iso_across_the_new_year() {
    // Story: weeks numbered by civil year put 30 December 2025 and 2 January 2026 in two weeks,
    // and 3 January 2024 and 30 December 2024 in one.
    let weekly = |days: [&str; 2]| {
        let history: Vec<Entry> = (1..)
            .zip(days)
            .map(|(n, day)| entry(n, at(&format!("{day}T02:00:00Z"))))
            .collect();
        deleted(&plan(r#"{"weekly":9}"#, &history, history[1].time)).len()
    };
    assert_eq!(weekly(["2025-12-30", "2026-01-02"]), 1);
    assert_eq!(weekly(["2024-01-03", "2024-12-30"]), 0);
    assert_eq!(weekly(["2024-12-30", "2025-01-05"]), 1);
    assert_eq!(weekly(["2025-01-05", "2025-01-06"]), 0);
}

#[test]
fn rule_05_the_newest_of_a_bucket_survives_or_the_oldest_if_asked() {
    let history = every(HOUR * 8, 9, at("2026-11-21T18:00:00Z"));
    let kept = |json| {
        let plan = plan(json, &history, at("2026-11-21T20:00:00Z"));
        plan.entries
            .iter()
            .filter(|e| !e.reasons().is_empty())
            .map(|e| e.sequence)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(r#"{"daily":3}"#), [9, 6, 3]);
    assert_eq!(kept(r#"{"daily":3,"keep_oldest":true}"#), [9, 7, 4, 1]);
}

#[test]
fn rule_06_empty_buckets_count_only_by_calendar() {
    let days = ["2026-01-10", "2026-02-10", "2026-06-10", "2026-07-10"];
    let history: Vec<Entry> = (1..)
        .zip(days)
        .map(|(n, day)| entry(n, at(&format!("{day}T02:00:00Z"))))
        .collect();
    let said = |json| {
        let plan = plan(json, &history, at("2026-12-24T00:00:00Z"));
        plan.entries
            .iter()
            .map(|e| {
                e.reasons()
                    .last()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        said(r#"{"monthly":3}"#),
        ["monthly 1/3", "monthly 2/3", "monthly 3/3", ""]
    );
    assert_eq!(
        said(r#"{"monthly":6,"calendar":true}"#),
        ["monthly 1/6", "monthly 2/6", "monthly 6/6", ""]
    );
}

#[test]
fn rule_07_a_future_stamp_is_kept_warned_about_and_fills_no_slot() {
    let now = at("2026-11-21T02:00:00Z");
    let mut history = every(DAY, 10, now);
    let wrong = entry(11, now + 300 * DAY);
    history.push(wrong.clone());
    let plan = plan(r#"{"daily":2,"last":2,"within":"1d"}"#, &history, now);
    let kept: Vec<u64> = plan
        .entries
        .iter()
        .filter(|e| !e.reasons().is_empty())
        .map(|e| e.sequence)
        .collect();
    assert_eq!(kept, [11, 10, 9]);
    assert_eq!(
        plan.get(&wrong.id).unwrap().reasons(),
        [Reason::Future, Reason::Latest]
    );
    assert!(plan.warnings.contains(&Warning::Future {
        id: wrong.id,
        time: wrong.time
    }));
    // Five minutes are no disagreement.
    let near = entry(11, now + MAX_SKEW);
    history.pop();
    history.push(near.clone());
    let plan = decide(
        &spec(r#"{"last":1}"#).build().unwrap(),
        &history,
        now,
        &open(),
    );
    assert_eq!(
        plan.get(&near.id)
            .unwrap()
            .reasons()
            .last()
            .unwrap()
            .to_string(),
        "last 1/1"
    );
    assert!(plan.warnings.is_empty());
}

#[test]
fn rule_09_ten_years_of_clock_error_never_delete_the_newest_good_ones() {
    let begin = at("2026-01-01T02:00:00Z");
    let policies: Vec<_> = [
        r#"{"last":1}"#,
        r#"{"daily":7,"weekly":4,"monthly":3}"#,
        r#"{"daily":2,"calendar":true,"timezone":"Europe/Berlin"}"#,
        r#"{"within":"1h"}"#,
        r#"{"days":1}"#,
        r#"{"yearly":1,"keep_oldest":true}"#,
    ]
    .iter()
    .map(|json| spec(json).build().unwrap())
    .collect();
    for error in -3653i64..=3653 {
        let wrong = |time: SystemTime| {
            let by = DAY * u32::try_from(error.unsigned_abs()).unwrap();
            if error < 0 { time - by } else { time + by }
        };
        for writer in [false, true] {
            let mut history = every(DAY, 20, begin);
            if writer {
                // The writer's clock went wrong before its last eight backups.
                for entry in &mut history[12..] {
                    *entry = Entry::new(
                        id(wrong(entry.time), entry.sequence),
                        entry.sequence,
                        wrong(entry.time),
                    );
                }
            }
            history[7].verified = Some(begin);
            history[5].proven = Some(begin);
            let now = if writer { begin } else { wrong(begin) };
            for policy in &policies {
                let plan = decide(policy, &history, now, &open());
                for good in [19, 7, 5] {
                    let entry = plan.get(&history[good].id).unwrap();
                    assert!(
                        !entry.reasons().is_empty(),
                        "{error} days, {policy:?}, {good}"
                    );
                }
            }
        }
    }
}

#[test]
fn rule_09_a_clock_set_back_does_not_make_the_last_days_look_old() {
    // Story: a board without a battery boots in 1970; counted by date, every one of its new
    // backups is the oldest there is and goes at the next prune.
    let mut history = every(DAY, 10, at("2026-11-21T02:00:00Z"));
    let now = at("2026-11-26T03:00:00Z");
    for n in 11..16u32 {
        history.push(entry(u64::from(n), SystemTime::UNIX_EPOCH + DAY * n));
    }
    for json in [
        r#"{"daily":5}"#,
        r#"{"last":5}"#,
        r#"{"days":5}"#,
        r#"{"within":"5d"}"#,
        r#"{"daily":5,"calendar":true}"#,
    ] {
        let plan = plan(json, &history, now);
        for entry in &plan.entries[..5] {
            assert!(!entry.reasons().is_empty(), "{json}: {}", entry.id);
        }
    }
    let plan = plan(r#"{"daily":5}"#, &history, now);
    let back = Warning::Backwards {
        id: history[10].id.clone(),
        after: history[9].id.clone(),
    };
    assert_eq!(plan.warnings, [back]);
}

#[test]
fn rule_09_a_run_in_flight_finds_its_parent() {
    let now = at("2026-11-21T02:00:00Z");
    // Weekly backups, two of them since the oldest run that may be in flight began.
    let mut history = every(7 * DAY, 5, now - 10 * DAY);
    history.push(entry(6, now - 20 * HOUR));
    history.push(entry(7, now - 2 * HOUR));
    let policy = spec(r#"{"last":1}"#).build().unwrap();
    let kept = |limits: Limits| {
        let plan = decide(&policy, &history, now, &limits);
        plan.entries
            .iter()
            .filter(|e| !e.reasons().is_empty())
            .map(|e| e.sequence)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(open()), [7]);
    assert_eq!(kept(open().incrementals(true)), [7, 6, 5]);
    assert_eq!(kept(open().incrementals(true).max_run(HOUR)), [7]);
    assert_eq!(kept(open().incrementals(true).max_run(3 * HOUR)), [7, 6]);
}

#[test]
fn rule_09_what_is_missing_from_a_chain_is_said() {
    let now = at("2026-11-21T02:00:00Z");
    let mut history = every(DAY, 3, now);
    let lost = id(now, 77);
    history[2].parent = Some(history[1].id.clone());
    history[1].parent = Some(lost.clone());
    history[0] = Entry::incomplete(history[0].id.clone());
    history[2].needs = vec![history[0].id.clone()];
    let plan = plan(r#"{"last":1}"#, &history, now);
    assert_eq!(
        plan.warnings,
        [
            Warning::Missing {
                id: history[2].id.clone(),
                needs: history[0].id.clone()
            },
            Warning::Missing {
                id: history[1].id.clone(),
                needs: lost
            },
        ]
    );
    assert_eq!(
        plan.get(&history[1].id).unwrap().reasons(),
        [Reason::ParentOf(history[2].id.clone())]
    );
    assert_eq!(
        plan.get(&history[0].id).unwrap().verdict,
        Verdict::Incomplete
    );
}

#[test]
fn rule_10_a_plan_that_deletes_too_much_is_refused() {
    let now = at("2026-11-21T02:00:00Z");
    let refused = |count: u32, keep: u32, limits: Limits| {
        let policy = spec(&format!(r#"{{"last":{keep}}}"#)).build().unwrap();
        let plan = decide(&policy, &every(DAY, count, now), now, &limits);
        assert_eq!(plan.deletable().is_err(), !plan.refusals.is_empty());
        plan.refusals
    };
    let default = Limits::default;
    for (count, keep, fine) in [
        (2, 1, true), // half of a short history
        (3, 1, false),
        (8, 7, true),
        (14, 9, true), // five, as many as one backup can replace
        (14, 8, false),
        (14, 1, false), // `last = 14` mistyped
        (100, 80, true),
        (100, 79, false),
        (365, 14, false), // the first prune after a long time
    ] {
        let refusals = refused(count, keep, default());
        assert_eq!(refusals.is_empty(), fine, "{count} to {keep}: {refusals:?}");
    }
    // What somebody allowed who read the plan, and not one more.
    assert_eq!(refused(365, 14, default().max_deletes(351)), []);
    assert_eq!(refused(365, 14, default().max_deletes(350)).len(), 1);
    assert_eq!(refused(365, 14, default().share(100)), []);
    assert_eq!(refused(100, 95, default().share(0)), []);
    assert_eq!(refused(100, 94, default().share(0)).len(), 1);
    // A prune that runs rarely deletes as many as were added since.
    assert_eq!(refused(40, 14, default().last_prune(now - 26 * DAY)), []);
    assert_eq!(
        refused(40, 13, default().last_prune(now - 26 * DAY)).len(),
        1
    );

    let policy = spec(r#"{"last":14}"#).build().unwrap();
    let plan = decide(&policy, &every(DAY, 365, now), now, &default());
    let error = plan.deletable().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(
        error.to_string(),
        "nothing is deleted: 351 of 365 backups would go, and 73 may without somebody allowing 351"
    );
    let shown = plan
        .entries
        .iter()
        .filter(|e| matches!(e.verdict, Verdict::Delete(_)));
    assert_eq!(
        shown.count(),
        351,
        "a refused plan still shows what it would do"
    );
}

#[test]
fn rule_10_nothing_goes_in_an_outage_or_when_clocks_disagree() {
    let now = at("2026-11-21T02:00:00Z");
    let history = every(DAY, 10, now);
    let refusals = |now, limits: Limits, json| {
        decide(&spec(json).build().unwrap(), &history, now, &limits).refusals
    };
    let (less, all) = (r#"{"last":9}"#, r#"{"last":10}"#);
    let daily = || Limits::default().period(DAY);
    assert_eq!(refusals(now + 2 * DAY, daily(), less), []);
    let late = now + 2 * DAY + Duration::from_secs(1);
    assert_eq!(
        refusals(late, daily(), less),
        [Refusal::Stale {
            newest: now,
            period: DAY.into()
        }]
    );
    assert_eq!(
        refusals(late, daily(), all),
        [],
        "nothing to delete is nothing to refuse"
    );
    let skew = |by| Limits::default().skew(by);
    assert_eq!(refusals(now, skew(MAX_SKEW), less), []);
    let more = MAX_SKEW + Duration::from_secs(1);
    assert_eq!(
        refusals(now, skew(more), less),
        [Refusal::Skew(more.into())]
    );
    let doubt = Limits::default().doubt("head 9 is lower than 12, which was seen before");
    assert_eq!(refusals(now, doubt, less).len(), 1);
}
