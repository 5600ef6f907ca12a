//! The policies in the box, those of others, and the way they are written.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup_core::ErrorKind;
use backup_core::retention::{
    Any, Counts, Decision, Entry, Forever, Gfs, KeepDays, KeepLast, Miss, PolicySpec, Reason,
    RecoveryWindow, Refusal, RetentionPolicy, Than, Verdict, Within, decide,
};

use crate::histories::*;

fn kept(json: &str, history: &[Entry], now: SystemTime) -> Vec<u64> {
    let plan = plan(json, history, now);
    let kept = plan.entries.iter().filter(|e| !e.reasons().is_empty());
    kept.map(|e| e.sequence).collect()
}

#[test]
fn days_are_whole_days_and_within_is_to_the_second() {
    let now = at("2026-11-21T02:00:00Z");
    let history = every(HOUR * 12, 20, now);
    // 21 November 02:00, and both of the two days before.
    assert_eq!(kept(r#"{"days":2}"#, &history, now), [20, 19, 18, 17, 16]);
    assert_eq!(
        kept(r#"{"within":"2d"}"#, &history, now),
        [20, 19, 18, 17, 16]
    );
    assert_eq!(kept(r#"{"within":"47h"}"#, &history, now), [20, 19, 18, 17]);
    // In Berlin the newest is of 21 November 03:00.
    let berlin = r#"{"days":1,"timezone":"Europe/Berlin"}"#;
    assert_eq!(kept(berlin, &history, now), [20, 19, 18]);
}

#[test]
fn a_recovery_window_keeps_the_backup_from_which_its_beginning_is_reached() {
    let now = at("2026-11-21T02:00:00Z");
    let mut history = every(DAY, 20, now);
    assert_eq!(kept(r#"{"window":"3d"}"#, &history, now), [20, 19, 18, 17]);
    // The one of three days ago ended an hour too late to begin with.
    history[16].finished += HOUR;
    assert_eq!(
        kept(r#"{"window":"3d"}"#, &history, now),
        [20, 19, 18, 17, 16]
    );
    let plan = plan(r#"{"window":"3d"}"#, &history, now);
    assert_eq!(
        plan.entries[4].reasons()[0].to_string(),
        "base of the last 3d"
    );
    assert_eq!(plan.entries[3].reasons()[0].to_string(), "in the last 3d");
}

#[test]
fn a_plan_says_why_in_a_few_words() {
    let now = at("2026-11-21T02:00:00Z");
    let mut history = every(DAY, 9, now);
    history[3].held = Some("audit 2026".to_owned());
    history[2].locked_until = Some(at("2026-12-01T00:00:00Z"));
    history[8].parent = Some(history[1].id.clone());
    history[7].verified = Some(now);
    history[6].proven = Some(now);
    history.push(Entry::incomplete(id(now, 10)));
    let plan = plan(r#"{"daily":3,"weekly":2,"within":"36h"}"#, &history, now);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "keep": [
                { "id": "20261121T020000Z-00000009",
                  "reasons": ["latest", "daily 1/3", "weekly 1/2", "within 36h"] },
                { "id": "20261120T020000Z-00000008",
                  "reasons": ["newest verified", "daily 2/3", "within 36h"] },
                { "id": "20261119T020000Z-00000007", "reasons": ["newest proven", "daily 3/3"] },
                { "id": "20261116T020000Z-00000004", "reasons": ["held: audit 2026"] },
                { "id": "20261115T020000Z-00000003",
                  "reasons": ["weekly 2/2", "locked until 2026-12-01T00:00:00Z"] },
                { "id": "20261114T020000Z-00000002",
                  "reasons": ["parent of 20261121T020000Z-00000009"] },
            ],
            "delete": [
                { "id": "20261118T020000Z-00000006",
                  "nearest_miss": "daily 3/3 went to 20261119T020000Z-00000007" },
                { "id": "20261117T020000Z-00000005",
                  "nearest_miss": "daily 3/3 went to 20261119T020000Z-00000007" },
                { "id": "20261113T020000Z-00000001",
                  "nearest_miss": "weekly 2/2 went to 20261115T020000Z-00000003" },
            ],
            "deferred": [],
            "incomplete": ["20261121T020000Z-0000000a"],
            "warnings": [],
            "refusals": [],
        })
    );
    let plan = crate::histories::plan(r#"{"last":1}"#, &history, now);
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(
        json["deferred"],
        serde_json::json!([{
            "id": "20261115T020000Z-00000003",
            "until": "2026-12-01T00:00:00Z",
            "nearest_miss": "last 1/1 went to 20261121T020000Z-00000009",
        }])
    );
}

#[test]
fn of_several_misses_the_nearest_is_said() {
    let now = at("2026-11-21T02:00:00Z");
    let history = every(DAY, 9, now);
    let plan = plan(r#"{"last":2,"within":"4d"}"#, &history, now);
    let Verdict::Delete(Some(miss)) = &plan.entries[5].verdict else {
        panic!("{plan:?}")
    };
    assert_eq!(miss.to_string(), "within 4d begins at 2026-11-17T02:00:00Z");
    assert!(matches!(miss, Miss::TooOld { .. }));
}

/// Keeps every backup of one weekday; speaks up as a stranger would.
#[derive(Debug)]
struct Even;

impl RetentionPolicy for Even {
    fn keep(&self, history: &[&Entry], _: SystemTime) -> Vec<Decision> {
        let even = history
            .iter()
            .enumerate()
            .filter(|(_, e)| e.sequence % 2 == 0);
        let reason = || Reason::Other("even".to_owned());
        even.map(|(entry, _)| Decision::Keep {
            entry,
            reason: reason(),
        })
        .collect()
    }
}

#[test]
fn a_policy_of_ones_own_sees_sound_backups_only_and_joins_others() {
    let now = at("2026-11-21T02:00:00Z");
    let mut history = every(DAY, 9, now);
    history[1] = Entry::incomplete(history[1].id.clone());
    let any = Any::new(vec![Arc::new(Even), Arc::new(KeepLast::new(1).unwrap())]).unwrap();
    let boxed: Box<dyn RetentionPolicy> = Box::new(any);
    let plan = decide(&boxed, &history, now, &open());
    let kept: Vec<u64> = plan
        .entries
        .iter()
        .filter(|e| !e.reasons().is_empty())
        .map(|e| e.sequence)
        .collect();
    assert_eq!(kept, [9, 8, 6, 4]);
    let lonely = decide(&Even, &history, now, &open());
    assert_eq!(lonely.entries[2].verdict, Verdict::Delete(None));
}

/// Speaks about what it was not given.
#[derive(Debug)]
struct Wrong(Decision);

impl RetentionPolicy for Wrong {
    fn keep(&self, _: &[&Entry], _: SystemTime) -> Vec<Decision> {
        vec![self.0.clone()]
    }
}

#[test]
fn a_policy_that_miscounts_deletes_nothing() {
    let now = at("2026-11-21T02:00:00Z");
    let history = every(DAY, 9, now);
    let reason = || Reason::Forever;
    for (entry, decision) in [
        (
            9,
            Decision::Keep {
                entry: 9,
                reason: reason(),
            },
        ),
        (
            9,
            Decision::Miss {
                entry: 9,
                reason: reason(),
                than: Than::Entry(0),
            },
        ),
        (
            1,
            Decision::Miss {
                entry: 1,
                reason: reason(),
                than: Than::Entry(9),
            },
        ),
    ] {
        let plan = decide(&Wrong(decision), &history, now, &open());
        assert_eq!(plan.refusals, [Refusal::Policy { entry, of: 9 }]);
        assert_eq!(plan.deletable().unwrap_err().kind(), ErrorKind::Refused);
    }
}

#[test]
fn what_keeps_nothing_cannot_be_made() {
    let nothing: [Result<Arc<dyn RetentionPolicy>, _>; 6] = [
        KeepLast::new(0).map(|p| Arc::new(p) as _),
        KeepDays::new(0).map(|p| Arc::new(p) as _),
        Gfs::new(Counts::default()).map(|p| Arc::new(p) as _),
        Within::new(Duration::ZERO).map(|p| Arc::new(p) as _),
        RecoveryWindow::new(Duration::ZERO).map(|p| Arc::new(p) as _),
        Any::new(Vec::new()).map(|p| Arc::new(p) as _),
    ];
    for policy in nothing {
        assert_eq!(policy.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(KeepDays::new(1).unwrap().in_zone("Europe/Berlln").is_err());
    let counts = Counts {
        daily: 1,
        ..Counts::default()
    };
    assert!(Gfs::new(counts).unwrap().in_zone("Mars/Olympus").is_err());
    assert_eq!(
        kept(
            r#"{"forever":true}"#,
            &every(DAY, 9, at("2026-11-21T02:00:00Z")),
            at("2020-01-01T00:00:00Z")
        )
        .len(),
        9
    );
    assert!(format!("{Forever:?}").contains("Forever"));
}

#[test]
fn a_policy_that_is_written_wrong_is_refused_by_name() {
    for (json, says) in [
        ("{}", "retention keeps nothing; set one of hourly"),
        (r#"{"forever":false}"#, "retention keeps nothing"),
        (r#"{"daily":0}"#, "retention `daily` must be at least 1"),
        (
            r#"{"daily":7,"last":0}"#,
            "retention `last` must be at least 1",
        ),
        (r#"{"days":0}"#, "retention `days` must be at least 1"),
        (
            r#"{"within":"0d"}"#,
            "retention `within` must be longer than nothing",
        ),
        (
            r#"{"window":"0h"}"#,
            "retention `window` must be longer than nothing",
        ),
        (
            r#"{"daily":7,"timezone":"Europe/Berlln"}"#,
            "\"Europe/Berlln\"",
        ),
        (
            r#"{"last":7,"timezone":"Europe/Berlin"}"#,
            "`timezone = \"Europe/Berlin\"` changes nothing",
        ),
        (
            r#"{"last":7,"keep_oldest":true}"#,
            "`keep_oldest` changes nothing",
        ),
        (
            r#"{"days":7,"calendar":true}"#,
            "`calendar` changes nothing",
        ),
    ] {
        let error = spec(json).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{json}");
        assert!(error.to_string().contains(says), "{json}: {error}");
    }
    for (json, says) in [
        (r#"{"dayly":7}"#, "unknown field `dayly`"),
        (r#"{"daily":-7}"#, "invalid value: integer `-7`"),
        (r#"{"daily":"7"}"#, "invalid type: string \"7\""),
        (
            r#"{"within":"30 days"}"#,
            "\"30 days\" is no length of time",
        ),
        (r#"{"within":30}"#, "invalid type: integer `30`"),
    ] {
        let error = serde_json::from_str::<PolicySpec>(json).unwrap_err();
        assert!(error.to_string().contains(says), "{json}: {error}");
    }
}

#[test]
fn a_written_policy_is_written_back_as_it_was() {
    for json in [
        r#"{"daily":7,"weekly":4,"monthly":3}"#,
        r#"{"last":3,"within":"30d"}"#,
        r#"{"hourly":24,"yearly":10,"days":14,"window":"36h","timezone":"Europe/Berlin","keep_oldest":true,"calendar":true}"#,
        r#"{"forever":true}"#,
    ] {
        assert_eq!(serde_json::to_string(&spec(json)).unwrap(), json);
    }
}
