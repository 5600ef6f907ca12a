//! `ls`: every backup, and why it is kept.

use std::collections::BTreeMap;

use backup_core::{Backup, History, Id, Job, PruneOptions, Result};
use serde_json::{Value, json};

use crate::args::Ls;
use crate::config::human;
use crate::context::{Context, Purpose};
use crate::exit::Answer;
use crate::output::Table;

/// Lists one job or all. A job that cannot be read is warned about, and fails the call if there is
/// nothing else to show.
pub(crate) async fn ls(context: &Context<'_>, arguments: &Ls) -> Result<Answer> {
    let names: Vec<&str> = match &arguments.job {
        Some(job) => vec![job.as_str()],
        None => context.jobs().collect(),
    };
    let mut table = Table::new([
        "ID",
        "JOB",
        "FINISHED",
        "SIZE",
        "STORED",
        "COPIES",
        "STATUS",
        "KEPT BECAUSE",
    ]);
    let mut rows = Vec::new();
    let mut failed = None;
    for name in &names {
        let job = context.job(name, Purpose::Read)?;
        let history = match job.history().await {
            Ok(history) => history,
            Err(error) => {
                tracing::warn!("job `{name}` cannot be listed: {}", error.chain());
                failed = Some(error);
                continue;
            }
        };
        warn(&job, &history);
        let kept = match reasons(&job).await {
            Ok(kept) => kept,
            Err(error) => {
                // Where a sink is away that was said already.
                if history.unreachable.is_empty() {
                    tracing::warn!("why backups are kept is not known: {}", error.chain());
                }
                BTreeMap::new()
            }
        };
        for backup in &history.backups {
            let kept = kept.get(&backup.manifest.id).map_or(&[][..], Vec::as_slice);
            table.row(cells(backup, kept));
            rows.push(row(backup, kept));
        }
    }
    match failed {
        Some(error) if rows.is_empty() => Err(error),
        _ => Ok(Answer::ok(table.to_string(), Value::Array(rows))),
    }
}

/// What is odd about a history, on stderr.
pub(crate) fn warn(job: &Job, history: &History) {
    for finding in &history.findings {
        tracing::warn!("job `{}`: {finding}", job.name());
    }
    for (sink, error) in &history.unreachable {
        tracing::warn!("sink `{sink}` cannot be read: {}", error.chain());
    }
}

/// Why each backup is kept, over all sinks.
async fn reasons(job: &Job) -> Result<BTreeMap<Id, Vec<String>>> {
    let mut all: BTreeMap<Id, Vec<String>> = BTreeMap::new();
    let plans = job.plan_prune(&PruneOptions::default()).await?;
    for planned in plans.iter().flat_map(|plan| &plan.plan.entries) {
        let reasons = all.entry(planned.id.clone()).or_default();
        for reason in planned.reasons().iter().map(ToString::to_string) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
    Ok(all)
}

/// `proven`, `verified` or `complete`: the best that is known.
pub(crate) fn status(backup: &Backup) -> &'static str {
    match (backup.proven, backup.verified) {
        (Some(_), _) => "proven",
        (None, Some(_)) => "verified",
        (None, None) => "complete",
    }
}

fn cells(backup: &Backup, kept: &[String]) -> [String; 8] {
    let manifest = &backup.manifest;
    let copies: Vec<&str> = backup
        .copies
        .iter()
        .map(|copy| copy.sink.as_str())
        .collect();
    [
        manifest.id.to_string(),
        manifest.job.clone(),
        manifest.finished.to_string(),
        human(manifest.plain_bytes()),
        human(manifest.stored_bytes()),
        copies.join(" "),
        status(backup).to_owned(),
        kept.join(", "),
    ]
}

fn row(backup: &Backup, kept: &[String]) -> Value {
    let manifest = &backup.manifest;
    json!({
        "id": manifest.id,
        "job": manifest.job,
        "kind": manifest.kind,
        "finished": manifest.finished,
        "plain_bytes": manifest.plain_bytes(),
        "stored_bytes": manifest.stored_bytes(),
        "status": status(backup),
        "copies": copies(backup),
        "kept_because": kept,
        "labels": manifest.labels,
    })
}

/// The copies of a backup, as JSON has them.
pub(crate) fn copies(backup: &Backup) -> Vec<Value> {
    let copy = |copy: &backup_core::Copy| json!({ "sink": copy.sink, "status": "complete" });
    backup.copies.iter().map(copy).collect()
}
