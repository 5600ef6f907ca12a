//! `prune`: what goes, and why the rest stays.

use std::fmt::Write;

use backup_core::retention::Verdict;
use backup_core::{Id, PruneOptions, PrunePlan, PruneReport, Result, Stamp};
use serde_json::{Value, json};

use crate::args::Prune;
use crate::config::human;
use crate::context::{Context, Purpose};
use crate::exit::{Answer, Exit};
use crate::output::count;

/// Shows what would go, or lets it go.
pub(crate) async fn prune(context: &Context<'_>, arguments: &Prune) -> Result<Answer> {
    let mut options = PruneOptions::default();
    if let Some(sink) = &arguments.sink {
        options = options.sink(sink);
    }
    if let Some(count) = arguments.max_deletes {
        options = options.max_deletes(count);
    }
    if let Some(age) = arguments.sweep_older_than {
        options = options.sweep_older_than(age.into());
    }
    let name = context.named_or_only(arguments.job.as_deref())?;
    if arguments.apply {
        let job = context.job(name, Purpose::Write)?;
        let reports = job.prune(&options).await?;
        return Ok(applied(name, &reports));
    }
    let job = context.job(name, Purpose::Read)?;
    let plans = job.plan_prune(&options).await?;
    Ok(dry(name, &plans))
}

fn dry(job: &str, plans: &[PrunePlan]) -> Answer {
    let mut json = Lists::default();
    let mut text = String::new();
    let mut refused = Vec::new();
    let mut going = false;
    for plan in plans {
        json.plan(plan);
        for warning in &plan.plan.warnings {
            tracing::warn!("sink `{}`: {warning}", plan.sink);
        }
        for refusal in &plan.plan.refusals {
            let line = format!("sink `{}`: --apply would be refused: {refusal}", plan.sink);
            refused.push(line);
        }
        for planned in &plan.plan.entries {
            let (id, sink) = (&planned.id, &plan.sink);
            let _ = match &planned.verdict {
                Verdict::Keep(reasons) => {
                    let words: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                    writeln!(text, "keep    {id}  {sink}: {}", words.join(", "))
                }
                Verdict::Delete(miss) => {
                    going = true;
                    let miss = miss.as_ref().map_or(String::new(), |m| format!(": {m}"));
                    writeln!(text, "delete  {id}  {sink}{miss}")
                }
                Verdict::Deferred { until, .. } => {
                    let until = Stamp::from(*until);
                    writeln!(text, "locked  {id}  {sink}: until {until}")
                }
                _ => Ok(()),
            };
        }
        for id in &plan.leftovers {
            going = true;
            let _ = writeln!(
                text,
                "sweep   {id}  {}: left by a run that failed",
                plan.sink
            );
        }
    }
    for line in &refused {
        let _ = writeln!(text, "{line}");
    }
    text.push_str(match (going, refused.is_empty()) {
        (true, true) => "dry run; --apply deletes\n",
        (true, false) => "",
        (false, _) => "nothing to delete\n",
    });
    Answer {
        exit: if refused.is_empty() {
            Exit::Ok
        } else {
            Exit::Refused
        },
        text,
        json: json.finish(job, false, &refused),
    }
}

fn applied(job: &str, reports: &[PruneReport]) -> Answer {
    let mut json = Lists::default();
    let mut text = String::new();
    let mut failed = Vec::new();
    for report in reports {
        let sink = &report.plan.sink;
        json.plan(&report.plan);
        for id in &report.deleted {
            let _ = writeln!(text, "deleted {id}  {sink}");
        }
        for (id, error) in &report.kept {
            failed.push(format!("{id}  {sink}: {}", error.chain()));
        }
        if report.swept.objects > 0 {
            let objects = count(report.swept.objects, "object");
            let _ = writeln!(
                text,
                "swept   {objects}, {}  {sink}",
                human(report.swept.bytes)
            );
        }
    }
    for line in &failed {
        tracing::warn!("not deleted: {line}");
    }
    if text.is_empty() {
        text.push_str("nothing deleted\n");
    }
    Answer {
        exit: if failed.is_empty() {
            Exit::Ok
        } else {
            Exit::Failed
        },
        text,
        json: json.finish(job, true, &failed),
    }
}

#[derive(Default)]
struct Lists {
    keep: Vec<Value>,
    delete: Vec<Value>,
    deferred: Vec<Value>,
    leftovers: Vec<Value>,
}

impl Lists {
    fn plan(&mut self, plan: &PrunePlan) {
        let sink = &plan.sink;
        for planned in &plan.plan.entries {
            let id = &planned.id;
            match &planned.verdict {
                Verdict::Keep(reasons) => self
                    .keep
                    .push(json!({ "id": id, "sink": sink, "reasons": reasons })),
                Verdict::Delete(miss) => self
                    .delete
                    .push(json!({ "id": id, "sink": sink, "nearest_miss": miss })),
                Verdict::Deferred { until, .. } => self
                    .deferred
                    .push(json!({ "id": id, "sink": sink, "until": Stamp::from(*until) })),
                _ => {}
            }
        }
        let leftover = |id: &Id| json!({ "id": id, "sink": sink });
        self.leftovers.extend(plan.leftovers.iter().map(leftover));
    }

    fn finish(self, job: &str, applied: bool, problems: &[String]) -> Value {
        json!({
            "job": job,
            "applied": applied,
            "keep": self.keep,
            "delete": self.delete,
            "deferred": self.deferred,
            "leftovers": self.leftovers,
            "problems": problems,
        })
    }
}
