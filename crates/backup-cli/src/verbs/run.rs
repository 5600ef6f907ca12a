//! `run`: one backup.

use std::time::Duration;

use backup_core::{
    Claims, Clock, Error, ErrorKind, Report, Result, RunOptions, Stamp, Status, SystemClock, Taken,
};
use serde_json::{Value, json};

use crate::args::Run;
use crate::config::{JobConfig, human};
use crate::context::{Context, Purpose};
use crate::exit::{Answer, Exit};
use crate::output::say;
use crate::signals::Stop;

/// The longest run, where the job says nothing.
const MAX_RUN: Duration = Duration::from_secs(24 * 3600);

/// Makes one backup. A signal cancels it; once the commit has begun it is finished instead.
pub(crate) async fn run(context: &Context<'_>, arguments: &Run, stop: &Stop) -> Result<Answer> {
    let name = context.named_or_only(arguments.job.as_deref())?;
    let job = context.job(name, Purpose::Write)?;
    let bound = job.memory_bound();
    if context.output.verbose > 0 {
        say(&format!("memory bound: {} MiB", bound.div_ceil(1 << 20)));
    }
    let config = &context.loaded.config.jobs[name];
    if let Some(slot) = &arguments.slot {
        take(context, config, name, slot).await?;
    }
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

/// Takes a slot of the schedule in the first sink that answers. If none does, the run goes on:
/// better two runs than none.
async fn take(context: &Context<'_>, config: &JobConfig, job: &str, slot: &str) -> Result<()> {
    let deadline = config.max_run.map_or(MAX_RUN, Duration::from);
    let host = rustix::system::uname();
    let owner = format!(
        "{} {}",
        host.nodename().to_string_lossy(),
        std::process::id()
    );
    for name in &config.sinks {
        let sink = context
            .registry
            .make_sink(&context.loaded.config.sinks[name])?;
        let claims = Claims::new(sink, job)?;
        match claims.take(slot, &owner, SystemClock.now(), deadline).await {
            Ok(Taken::Won { .. }) => return Ok(()),
            Ok(Taken::Held { by, until }) => {
                return Err(Error::new(
                    ErrorKind::Locked,
                    format!(
                        "slot `{slot}` of job `{job}` is taken by {by} until {}",
                        Stamp::from(until)
                    ),
                ));
            }
            Err(error) if error.kind() == ErrorKind::Invalid => return Err(error),
            Err(error) => tracing::warn!("no slot in sink `{name}`: {}", error.chain()),
        }
    }
    tracing::warn!("slot `{slot}` could not be taken anywhere; running all the same");
    Ok(())
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
