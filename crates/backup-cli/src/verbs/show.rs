//! `show` and `why`: one backup.

use std::fmt::Write;

use backup_core::retention::Verdict;
use backup_core::{PruneOptions, Result, Stamp};
use serde_json::{Value, json};

use super::ls::{copies, status};
use crate::args::Which;
use crate::config::human;
use crate::context::{Context, Purpose};
use crate::exit::Answer;

/// Everything that is known of one backup.
pub(crate) async fn show(context: &Context<'_>, arguments: &Which) -> Result<Answer> {
    let (_, backup) = context.find(&arguments.backup, Purpose::Read).await?;
    let manifest = &backup.manifest;
    let when = |time: Option<std::time::SystemTime>| time.map(Stamp::from);
    let sinks: Vec<&str> = backup
        .copies
        .iter()
        .map(|copy| copy.sink.as_str())
        .collect();

    let mut lines = vec![
        ("id", manifest.id.to_string()),
        ("job", manifest.job.clone()),
        ("kind", manifest.kind.clone()),
        ("sequence", manifest.sequence.to_string()),
        ("started", manifest.started.to_string()),
        ("finished", manifest.finished.to_string()),
        ("status", status(&backup).to_owned()),
        ("copies", sinks.join(" ")),
        ("size", human(manifest.plain_bytes())),
        ("stored", human(manifest.stored_bytes())),
        ("manifest", backup.digest.to_string()),
    ];
    if let Some(parent) = &manifest.parent {
        lines.push(("parent", parent.to_string()));
    }
    if !manifest.labels.is_empty() {
        lines.push(("labels", manifest.labels.join(" ")));
    }
    for (name, time) in [("verified", backup.verified), ("proven", backup.proven)] {
        if let Some(time) = when(time) {
            lines.push((name, time.to_string()));
        }
    }
    if let Some(reason) = &backup.held {
        lines.push(("held", reason.clone()));
    }
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<9} {value}");
    }
    for (name, value) in manifest.facts.iter() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(text, "fact      {name} = {value}");
    }
    for part in &manifest.parts {
        let _ = writeln!(
            text,
            "part      {}  {} as {} ({})",
            part.name,
            human(part.plain.len),
            human(part.stored_len()),
            part.transforms.join(", "),
        );
    }
    let json = json!({
        "manifest": &**manifest,
        "manifest_sha256": backup.digest,
        "status": status(&backup),
        "copies": copies(&backup),
        "verified": when(backup.verified),
        "proven": when(backup.proven),
        "held": backup.held,
    });
    Ok(Answer::ok(text, json))
}

/// Why a backup is kept in each sink, or what its nearest miss is.
pub(crate) async fn why(context: &Context<'_>, arguments: &Which) -> Result<Answer> {
    let (job, backup) = context.find(&arguments.backup, Purpose::Read).await?;
    let id = &backup.manifest.id;
    let plans = job.plan_prune(&PruneOptions::default()).await?;
    let mut text = String::new();
    let mut sinks = Vec::new();
    for plan in &plans {
        let Some(planned) = plan.plan.get(id) else {
            continue;
        };
        let miss = |miss: &Option<backup_core::retention::Miss>| {
            miss.as_ref()
                .map_or("no rule came near".to_owned(), |m| format!("nearest: {m}"))
        };
        let (verdict, line, more): (_, _, Value) = match &planned.verdict {
            Verdict::Keep(reasons) => {
                let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                (
                    "keep",
                    format!("kept: {}", words.join(", ")),
                    json!({ "reasons": reasons }),
                )
            }
            Verdict::Delete(near) => (
                "delete",
                format!("the next prune deletes it; {}", miss(near)),
                json!({ "nearest_miss": near }),
            ),
            Verdict::Deferred { until, miss: near } => {
                let until = Stamp::from(*until);
                (
                    "deferred",
                    format!("to be deleted, locked until {until}; {}", miss(near)),
                    json!({ "until": until, "nearest_miss": near }),
                )
            }
            _ => (
                "incomplete",
                "incomplete: a sweep collects it".to_owned(),
                json!({}),
            ),
        };
        let _ = writeln!(text, "{id}  {}: {line}", plan.sink);
        let mut entry = json!({ "sink": plan.sink, "verdict": verdict });
        merge(&mut entry, more);
        sinks.push(entry);
    }
    let json = json!({ "id": id, "job": job.name(), "sinks": sinks });
    Ok(Answer::ok(text, json))
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
