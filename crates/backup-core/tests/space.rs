//! What cannot fit is refused before it is begun, and said either way.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};

use backup_core::*;

/// A place, what is free there and what is needed.
type Space = (String, Option<u64>, Option<u64>);

/// Remembers what was told of room.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<Space>>>);

impl Observer for Told {
    fn event(&self, event: &Event<'_>) {
        if let Event::Space {
            place,
            free,
            needed,
        } = event
        {
            let told = ((*place).to_owned(), *free, *needed);
            self.0.lock().unwrap().push(told);
        }
    }
}

fn job(sinks: &[(&str, &MemorySink)], told: &Told) -> Job {
    let mut job = Job::builder("orders")
        .source(MemorySource::new([("a", "x".repeat(5000))]))
        .pipeline(Pipeline::unencrypted())
        .min_copies(1)
        .observer(told.clone());
    for (name, sink) in sinks {
        job = job.sink(*name, (*sink).clone());
    }
    job.build().unwrap()
}

#[tokio::test]
async fn a_sink_that_is_too_full_for_what_it_held_before_is_out_of_the_run() {
    let (told, full, other) = (Told::default(), MemorySink::new(), MemorySink::new());
    let first = job(&[("full", &full), ("other", &other)], &told);
    first.run(RunOptions::default()).await.unwrap();
    let roomy = job(&[("full", &full.clone().free(5000))], &told);
    roomy.run(RunOptions::default()).await.unwrap();

    let full = full.free(4999);
    let both = job(&[("full", &full), ("other", &other)], &told);
    let report = both.run(RunOptions::default()).await.unwrap();
    let error = report.copies[0].error.as_ref().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("make room"), "{error:?}");
    assert!(report.copies[1].error.is_none());
    let alone = job(&[("full", &full)], &told)
        .run(RunOptions::default())
        .await;
    assert!(alone.unwrap_err().chain().contains("make room"));

    let told = told.0.lock().unwrap();
    let place = |text: &str| text.to_owned();
    assert_eq!(told[0], (place("full"), None, None), "nothing to judge by");
    assert_eq!(told[2], (place("full"), Some(5000), Some(5000)));
    assert_eq!(told[3], (place("full"), Some(4999), Some(5000)));
    assert_eq!(told[4], (place("other"), None, Some(5000)));
}

#[tokio::test]
async fn what_does_not_fit_into_a_target_is_restored_only_for_who_insists() {
    let (told, sink) = (Told::default(), MemorySink::new());
    let job = job(&[("sink", &sink)], &told);
    let id = job.run(RunOptions::default()).await.unwrap().id;
    let target = MemoryTarget::new().free(4999);
    let request = RestoreRequest::default;
    let plan = job.plan_restore(&id, &target, &request()).await.unwrap();
    assert_eq!((plan.free, plan.needed), (Some(4999), 5000));
    assert!(plan.refused.unwrap().contains("--force"));
    let refused = job.restore(&id, &target, request()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(target.parts().is_empty());

    job.restore(&id, &target, request().force()).await.unwrap();
    let enough = MemoryTarget::new().free(5000);
    job.restore(&id, &enough, request()).await.unwrap();
    let unknown = MemoryTarget::new();
    job.restore(&id, &unknown, request()).await.unwrap();
    let told = told.0.lock().unwrap();
    assert_eq!(told.last(), Some(&("memory".to_owned(), None, Some(5000))));
}
