//! What a plan must say, worked out the slow and obvious way: for each backup and each rule on
//! its own, by counting, with the calendar of `jiff` instead of arithmetic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use backup_core::retention::{Entry, PolicySpec};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Unit};

const SKEW: Duration = Duration::from_secs(300);

/// For every entry, by position: `incomplete`, `delete`, `deferred`, or its sorted reasons.
pub(crate) fn verdicts(
    spec: &PolicySpec,
    history: &[Entry],
    now: SystemTime,
    max_run: Option<Duration>,
) -> Vec<String> {
    let mut reasons: Vec<BTreeSet<String>> = vec![BTreeSet::new(); history.len()];
    let twin = |e: &Entry| history.iter().filter(|o| o.id == e.id).count() > 1;
    let future = |e: &Entry| e.time > now + SKEW;
    let sound = |e: &Entry| e.complete && !future(e) && !twin(e);
    // How many complete backups that fit are newer.
    let newer = |e: &Entry, fits: &dyn Fn(&Entry) -> bool| {
        let after = |o: &&Entry| (o.sequence, &o.id) > (e.sequence, &e.id) && fits(o);
        history.iter().filter(after).count()
    };
    let top = |e: &Entry, fits: &dyn Fn(&Entry) -> bool| {
        fits(e) && !history.iter().any(|o| fits(o) && o.sequence > e.sequence)
    };
    for (e, reasons) in history.iter().zip(&mut reasons) {
        let mut add = |yes: bool, text: &str| {
            if yes {
                reasons.insert(text.to_owned());
            }
        };
        add(twin(e), "not the only one of its id");
        if !e.complete {
            continue;
        }
        add(future(e), "stamped in the future");
        add(top(e, &|o| o.complete), "latest");
        add(sound(e) && newer(e, &sound) == 0, "latest");
        add(
            top(e, &|o| o.complete && o.verified.is_some()),
            "newest verified",
        );
        add(
            top(e, &|o| o.complete && o.proven.is_some()),
            "newest proven",
        );
        if let Some(why) = &e.held {
            add(true, &format!("held: {why}"));
        }
        if let Some(max_run) = max_run {
            let old = |o: &Entry| o.complete && o.finished < now - max_run;
            add(
                !old(e) || top(e, &old),
                "possible parent of a run in flight",
            );
        }
        if sound(e) {
            reasons.extend(policy(spec, e, history, &sound));
        }
    }
    // Chains: again and again until nothing changes.
    let locked = |e: &Entry| e.locked_until.is_some_and(|until| until > now);
    loop {
        let mut found = BTreeSet::new();
        for (i, child) in history.iter().enumerate() {
            if !child.complete || (reasons[i].is_empty() && !locked(child)) {
                continue;
            }
            for (j, other) in history.iter().enumerate() {
                if other.id == child.id || !other.complete {
                    continue;
                }
                if child.parent.as_ref() == Some(&other.id) {
                    found.insert((j, format!("parent of {}", child.id)));
                } else if child.needs.contains(&other.id) {
                    found.insert((j, format!("needed by {}", child.id)));
                }
            }
        }
        let before: usize = reasons.iter().map(BTreeSet::len).sum();
        for (j, reason) in found {
            reasons[j].insert(reason);
        }
        if reasons.iter().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    history
        .iter()
        .zip(reasons)
        .map(|(e, reasons)| match (reasons.is_empty(), locked(e)) {
            (true, _) if !e.complete => "incomplete".to_owned(),
            (true, true) => "deferred".to_owned(),
            (true, false) => "delete".to_owned(),
            (false, _) => reasons.into_iter().collect::<Vec<_>>().join(", "),
        })
        .collect()
}

fn policy(
    spec: &PolicySpec,
    e: &Entry,
    history: &[Entry],
    sound: &dyn Fn(&Entry) -> bool,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let order = |o: &Entry| (o.sequence, o.id.clone());
    let all: Vec<&Entry> = history.iter().filter(|o| sound(o)).collect();
    let anchor = all.iter().max_by_key(|o| order(o)).unwrap();
    let zone = TimeZone::get(spec.timezone.as_deref().unwrap_or("UTC")).unwrap();
    let oldest = spec.keep_oldest;

    for (name, count) in [
        ("hourly", spec.hourly),
        ("daily", spec.daily),
        ("weekly", spec.weekly),
        ("monthly", spec.monthly),
        ("yearly", spec.yearly),
    ] {
        let Some(count) = count else { continue };
        let own = bucket(&zone, name, e.time);
        let members: BTreeMap<_, &Entry> = all
            .iter()
            .filter(|o| bucket(&zone, name, o.time) == own)
            .map(|o| (order(o), *o))
            .collect();
        let (_, survivor) = if oldest {
            members.first_key_value()
        } else {
            members.last_key_value()
        }
        .unwrap();
        if survivor.id != e.id {
            continue;
        }
        let rank = if spec.calendar {
            // Step back from the anchor's bucket until we meet ours, or have gone past it.
            let mut rank = 1;
            let mut at = start(&zone, name, anchor.time);
            while bucket(&zone, name, at) > own && rank <= count {
                at = start(&zone, name, at - Duration::from_nanos(1));
                rank += 1;
            }
            rank
        } else {
            // The buckets that come before ours.
            let place = |o: &Entry| {
                let own = bucket(&zone, name, o.time);
                let highest = all
                    .iter()
                    .filter(|p| bucket(&zone, name, p.time) == own)
                    .map(|p| order(p))
                    .max();
                (own, highest)
            };
            let (_, ours) = place(e);
            let before: BTreeSet<String> = all
                .iter()
                .map(|o| place(o))
                .filter(|(theirs, highest)| {
                    if oldest {
                        *theirs > own
                    } else {
                        *highest > ours
                    }
                })
                .map(|(theirs, _)| theirs)
                .collect();
            u32::try_from(before.len()).unwrap() + 1
        };
        if rank <= count {
            reasons.push(format!("{name} {rank}/{count}"));
        }
    }
    if let Some(of) = spec.last {
        let rank = 1 + all.iter().filter(|o| order(o) > order(e)).count();
        if rank <= of as usize {
            reasons.push(format!("last {rank}/{of}"));
        }
    }
    if let Some(of) = spec.days {
        let date = |time: SystemTime| {
            Timestamp::try_from(time)
                .unwrap()
                .to_zoned(zone.clone())
                .date()
        };
        let days = date(anchor.time)
            .since((Unit::Day, date(e.time)))
            .unwrap()
            .get_days()
            .max(0);
        if days as u32 <= of {
            reasons.push(format!("days {days}/{of}"));
        }
    }
    if let Some(length) = spec.within {
        let begins = anchor.time - Duration::from(length);
        if e.time >= begins {
            reasons.push(format!("within {length}"));
        }
    }
    if let Some(length) = spec.window {
        let begins = anchor.time - Duration::from(length);
        let ended = |o: &&&Entry| o.finished <= begins;
        let base = all
            .iter()
            .filter(ended)
            .max_by_key(|o| (o.finished, order(o)));
        if e.finished > begins {
            reasons.push(format!("in the last {length}"));
        } else if base.is_some_and(|base| base.id == e.id) {
            reasons.push(format!("base of the last {length}"));
        }
    }
    if spec.forever {
        reasons.push("forever".to_owned());
    }
    reasons
}

/// The name of a bucket; names sort by time.
pub(crate) fn bucket(zone: &TimeZone, period: &str, time: SystemTime) -> String {
    let zoned = Timestamp::try_from(time).unwrap().to_zoned(zone.clone());
    match period {
        // Wall clock, and the offset, which tells the two hours of an autumn night apart; the
        // first of them has the larger one, so it is turned around.
        "hourly" => {
            let offset = 100_000 - zoned.offset().seconds();
            format!("{} {offset:06}", zoned.strftime("%Y-%m-%d %H"))
        }
        "daily" => zoned.strftime("%Y-%m-%d").to_string(),
        "weekly" => {
            let week = zoned.date().iso_week_date();
            format!("{}-W{:02}", week.year(), week.week())
        }
        "monthly" => zoned.strftime("%Y-%m").to_string(),
        "yearly" => zoned.strftime("%Y").to_string(),
        other => panic!("{other}"),
    }
}

/// When the bucket of `time` begins.
fn start(zone: &TimeZone, period: &str, time: SystemTime) -> SystemTime {
    let zoned = Timestamp::try_from(time).unwrap().to_zoned(zone.clone());
    let date = zoned.date();
    let midnight = |date: jiff::civil::Date| date.to_zoned(zone.clone()).unwrap().timestamp();
    match period {
        "hourly" => {
            let minutes = i64::from(zoned.minute())
                .minutes()
                .seconds(i64::from(zoned.second()));
            let nanos = i64::from(zoned.subsec_nanosecond()).nanoseconds();
            zoned.timestamp() - minutes - nanos
        }
        "daily" => midnight(date),
        "weekly" => {
            let monday = date.weekday().to_monday_zero_offset();
            midnight(date.checked_sub(i64::from(monday).days()).unwrap())
        }
        "monthly" => midnight(date.first_of_month()),
        "yearly" => midnight(date.first_of_year()),
        other => panic!("{other}"),
    }
    .into()
}
