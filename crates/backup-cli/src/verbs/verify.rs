//! `verify`: reads backups back.

use std::fmt::Write;

use backup_core::{Error, ErrorKind, Id, Job, Result, Verification};
use serde_json::{Value, json};

use super::ls::warn;
use crate::args::Verify;
use crate::config::human;
use crate::context::{Context, Purpose};
use crate::exit::{Answer, Exit};
use crate::output::count;

/// Verifies one backup, all of a job, or all of all jobs. What is wrong in the history of a job
/// that is looked at as a whole counts as damage.
pub(crate) async fn verify(context: &Context<'_>, arguments: &Verify) -> Result<Answer> {
    let from = arguments.from.as_deref();
    let mut seen = Seen::default();
    match &arguments.backup {
        Some(job) if context.has_job(job) => {
            let job = context.job(job, Purpose::Verify)?;
            if let Some(from) = from.filter(|from| !job.sinks().any(|sink| sink == *from)) {
                return Err(unknown(&format!("job `{}`", job.name()), from));
            }
            seen.job(&job, from).await?;
        }
        Some(backup) => {
            let (job, backup) = context.find(backup, Purpose::Verify).await?;
            seen.backup(&job, &backup.manifest.id, from).await?;
        }
        None => {
            let sinks = &context.loaded.config.sinks;
            if let Some(from) = from.filter(|from| !sinks.contains_key(*from)) {
                return Err(unknown("the configuration", from));
            }
            for name in context.jobs() {
                let job = context.job(name, Purpose::Verify)?;
                if let Err(error) = seen.job(&job, from).await {
                    seen.unseen(name, "all sinks", &error);
                }
            }
        }
    }
    Ok(seen.answer())
}

fn unknown(place: &str, sink: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{place} has no sink `{sink}`"))
}

#[derive(Default)]
struct Seen {
    text: String,
    backups: Vec<Value>,
    findings: Vec<Value>,
    unreachable: Vec<Value>,
    damaged: bool,
}

impl Seen {
    async fn job(&mut self, job: &Job, from: Option<&str>) -> Result<()> {
        let history = job.history().await?;
        warn(job, &history);
        for finding in &history.findings {
            self.damaged = true;
            let _ = writeln!(self.text, "{}  {finding}", job.name());
            self.findings
                .push(json!({ "job": job.name(), "finding": finding.to_string() }));
        }
        for (sink, error) in &history.unreachable {
            self.unreachable
                .push(json!({ "job": job.name(), "where": sink, "error": error.chain() }));
        }
        for backup in &history.backups {
            let elsewhere = |from| !backup.copies.iter().any(|copy| copy.sink == from);
            if from.is_some_and(elsewhere) {
                continue;
            }
            // What could not be looked at must not hide what can.
            if let Err(error) = self.backup(job, &backup.manifest.id, from).await {
                self.unseen(job.name(), backup.manifest.id.as_str(), &error);
            }
        }
        Ok(())
    }

    fn unseen(&mut self, job: &str, place: &str, error: &Error) {
        tracing::warn!("job `{job}`, {place}: not verified: {}", error.chain());
        self.unreachable
            .push(json!({ "job": job, "where": place, "error": error.chain() }));
    }

    async fn backup(&mut self, job: &Job, id: &Id, from: Option<&str>) -> Result<()> {
        let copies = job.verify(id, from).await?;
        for copy in &copies {
            self.damaged |= !copy.problems.is_empty();
            self.tell(id, copy);
        }
        let copies: Vec<Value> = copies.iter().map(of_copy).collect();
        self.backups
            .push(json!({ "id": id, "job": job.name(), "copies": copies }));
        Ok(())
    }

    fn tell(&mut self, id: &Id, copy: &Verification) {
        let Verification {
            sink,
            level,
            objects,
            bytes,
            problems,
            ..
        } = copy;
        let signed = if copy.signed {
            "signed"
        } else {
            "signature not checked"
        };
        let read = format!(
            "{}, {}, {}, {signed}",
            count(*objects, "object"),
            human(*bytes),
            level.as_str()
        );
        if problems.is_empty() {
            let _ = writeln!(self.text, "{id}  {sink}: verified, {read}");
        }
        for problem in problems {
            let _ = writeln!(
                self.text,
                "{id}  {sink}: DAMAGED `{}`: {}",
                problem.key,
                problem.error.chain()
            );
        }
    }

    fn answer(self) -> Answer {
        let (exit, status) = match self.damaged {
            true => (Exit::Damaged, "damaged"),
            // A sink that could not be read was not verified.
            false if !self.unreachable.is_empty() => (Exit::Failed, "unreachable"),
            false => (Exit::Ok, "verified"),
        };
        let json = json!({
            "status": status,
            "backups": self.backups,
            "findings": self.findings,
            "unreachable": self.unreachable,
        });
        Answer {
            exit,
            text: self.text,
            json,
        }
    }
}

fn of_copy(copy: &Verification) -> Value {
    let problems: Vec<Value> = copy
        .problems
        .iter()
        .map(|problem| json!({ "key": problem.key, "error": problem.error.chain() }))
        .collect();
    json!({
        "sink": copy.sink,
        "status": if problems.is_empty() { "verified" } else { "damaged" },
        "level": copy.level.as_str(),
        "signed": copy.signed,
        "objects": copy.objects,
        "bytes": copy.bytes,
        "problems": problems,
    })
}
