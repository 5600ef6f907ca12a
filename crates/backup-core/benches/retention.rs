//! How long a plan takes for ten years of hourly backups. The limit is 50 ms.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backup_core::Id;
use backup_core::retention::{
    Any, Counts, Entry, Gfs, KeepDays, KeepLast, Limits, RetentionPolicy, Within, decide,
};
use criterion::{Criterion, criterion_group, criterion_main};

const HOUR: Duration = Duration::from_secs(3600);
const BACKUPS: u32 = 87_600;

fn history() -> (Vec<Entry>, SystemTime) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_226_400);
    let entries: Vec<Entry> = (0..BACKUPS)
        .map(|i| {
            let time = now - (BACKUPS - i) * HOUR;
            Entry::new(Id::new(time).unwrap(), u64::from(i) + 1, time)
        })
        .collect();
    (entries, now)
}

/// The same, in chains of 24: a full backup each day and increments each hour.
fn chains() -> (Vec<Entry>, SystemTime) {
    let (mut entries, now) = history();
    for i in (1..entries.len()).filter(|i| i % 24 != 0) {
        entries[i].parent = Some(entries[i - 1].id.clone());
    }
    (entries, now)
}

fn plan(c: &mut Criterion) {
    let counts = Counts {
        hourly: 48,
        daily: 14,
        weekly: 8,
        monthly: 24,
        yearly: 10,
    };
    let many = Counts {
        hourly: 80_000,
        daily: 3_000,
        weekly: 500,
        monthly: 100,
        yearly: 10,
    };
    let berlin = || Gfs::new(counts).unwrap().in_zone("Europe/Berlin").unwrap();
    let any = Any::new(vec![
        Arc::new(berlin()),
        Arc::new(KeepLast::new(10).unwrap()),
        Arc::new(KeepDays::new(30).unwrap()),
        Arc::new(Within::new(30 * 24 * HOUR).unwrap()),
    ]);
    let policies: [(&str, Box<dyn RetentionPolicy>); 4] = [
        ("gfs utc", Box::new(Gfs::new(counts).unwrap())),
        ("gfs berlin", Box::new(berlin())),
        (
            "gfs that keeps nearly all",
            Box::new(Gfs::new(many).unwrap()),
        ),
        ("any of four", Box::new(any.unwrap())),
    ];
    let (entries, now) = history();
    let limits = Limits::default();
    for (name, policy) in &policies {
        c.bench_function(&format!("plan 87600/{name}"), |b| {
            b.iter(|| black_box(decide(policy, black_box(&entries), now, &limits)));
        });
    }
    let (entries, now) = chains();
    c.bench_function("plan 87600/chains of 24", |b| {
        b.iter(|| black_box(decide(&policies[0].1, black_box(&entries), now, &limits)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = plan
}
criterion_main!(benches);
