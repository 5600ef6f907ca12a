//! `run`: one backup.

use backup_core::{Report, Result, RunOptions, Status};
use serde_json::{Value, json};

use crate::args::Run;
use crate::config::human;
use crate::context::{Context, Purpose};
use crate::exit::{Answer, Exit};
use crate::output::say;
use crate::signals::Stop;

/// Makes one backup. A signal cancels it; once the commit has begun it is finished instead.
pub(crate) async fn run(context: &Context<'_>, arguments: &Run, stop: &Stop) -> Result<Answer> {
    let job = context.job(&arguments.job, Purpose::Write)?;
    let bound = job.memory_bound();
    if context.output.verbose > 0 {
        say(&format!("memory bound: {} MiB", bound.div_ceil(1 << 20)));
    }
    let config = &context.loaded.config.jobs[&arguments.job];
    let mut options = RunOptions::default();
    for label in config.labels.iter().chain(&arguments.labels) {
        options = options.label(label);
    }
    let mut handle = job.start(options);
    let report = tokio::select! {
        report = handle.wait() => report?,
        () = stop.asked() => {
            handle.cancel();
            handle.wait().await?
        }
    };
    Ok(answer(&report, bound))
}

fn answer(report: &Report, bound: usize) -> Answer {
    let good = report
        .copies
        .iter()
        .filter(|copy| copy.error.is_none())
        .count();
    let (exit, status) = match report.status() {
        Status::Complete => (Exit::Ok, "complete"),
        Status::Partial => (Exit::Partial, "partial"),
    };
    for copy in &report.copies {
        if let Some(error) = &copy.error {
            tracing::warn!("no copy in sink `{}`: {}", copy.sink, error.chain());
        }
    }
    if exit == Exit::Partial {
        say(&format!(
            "{good} of {} copies committed, min_copies is {}",
            report.copies.len(),
            report.min_copies
        ));
    }
    let seconds = report.elapsed.as_secs_f64();
    let text = format!(
        "{}  {status}, {good} of {} copies, {} read, {} stored, {seconds:.1} s\n",
        report.id,
        report.copies.len(),
        human(report.plain_bytes),
        human(report.stored_bytes),
    );
    let copies: Vec<Value> = report
        .copies
        .iter()
        .map(|copy| match &copy.error {
            None => json!({ "sink": copy.sink, "status": "complete" }),
            Some(error) => {
                json!({ "sink": copy.sink, "status": "failed", "error": error.chain() })
            }
        })
        .collect();
    let json = json!({
        "id": report.id,
        "job": report.job,
        "status": status,
        "copies": copies,
        "plain_bytes": report.plain_bytes,
        "stored_bytes": report.stored_bytes,
        "seconds": seconds,
        "memory_bound": bound,
    });
    Answer { exit, text, json }
}
