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

/// The same for a future, in simulated time: what waits ten seconds for a broken thing to become
/// good does so at once.
fn panics_async(body: impl Future<Output = ()>) -> bool {
    block_on(true, body)
}

/// The same for a future that works with threads, which know nothing of simulated time.
fn panics_live(body: impl Future<Output = ()>) -> bool {
    block_on(false, body)
}

fn block_on(simulated: bool, body: impl Future<Output = ()>) -> bool {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .enable_all()
        .start_paused(simulated)
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

/// Asserts that the list has every case of these files, and that what is broken for it makes each
/// fail. The cases run side by side: some wait for what never comes.
fn assert_each_case_can_fail(
    listed: &[&str],
    files: &[&str],
    fails: impl Fn(&str) -> Vec<bool> + Sync,
) {
    let mut written: Vec<&str> = files.iter().flat_map(|file| cases_in(file)).collect();
    let mut sorted = listed.to_vec();
    written.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(written, sorted, "the list of cases is not what is written");
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for case in listed {
            running.push((case, scope.spawn(|| fails(case))));
        }
        for (case, outcomes) in running {
            let outcomes = outcomes.join().unwrap();
            assert!(!outcomes.is_empty(), "nothing is broken for `{case}`");
            let all = outcomes.iter().all(|failed| *failed);
            assert!(all, "`{case}` passes on something broken: {outcomes:?}");
        }
    });
}
