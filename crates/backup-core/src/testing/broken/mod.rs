//! The kit tests itself: every case must fail on something that is broken in just that way.

use std::panic::AssertUnwindSafe;

mod sink;
mod source;
mod target;
mod transform;

/// Whether the body panics.
fn panics(body: impl FnOnce()) -> bool {
    std::panic::catch_unwind(AssertUnwindSafe(body)).is_err()
}

/// The same for a future. Time is simulated: what waits ten seconds for a broken thing to become
/// good does so at once.
fn panics_async(body: impl Future<Output = ()>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    panics(|| runtime.block_on(body))
}

/// The public functions of some source text that take a fixture: a case that is missing from the
/// list of cases is no case.
fn cases_in(source: &str) -> Vec<&str> {
    let names = source.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ")?;
        let line = line
            .strip_prefix("async ")
            .unwrap_or(line)
            .strip_prefix("fn ")?;
        let (name, arguments) = line.split_once('(')?;
        arguments.starts_with("fixture: &").then_some(name)
    });
    names.collect()
}

/// Asserts that the list has every case of these files, and that `broken` makes each fail.
fn assert_each_case_can_fail(listed: &[&str], files: &[&str], fails: impl Fn(&str) -> Vec<bool>) {
    let mut written: Vec<&str> = files.iter().flat_map(|file| cases_in(file)).collect();
    let mut sorted = listed.to_vec();
    written.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(written, sorted, "the list of cases is not what is written");
    for case in listed {
        let outcomes = fails(case);
        assert!(!outcomes.is_empty(), "nothing is broken for `{case}`");
        let all = outcomes.iter().all(|failed| *failed);
        assert!(all, "`{case}` passes on something broken: {outcomes:?}");
    }
}
