//! `restore` and `fetch`: the way back.

use backup_core::{Backup, Error, ErrorKind, Job, RestoreRequest, Result};
use serde_json::json;

use crate::args::{Fetch, Restore};
use crate::config::human;
use crate::context::{Context, Purpose};
use crate::exit::{Answer, Exit};
use crate::output::count;

/// Restores a backup, or says what that would do.
pub(crate) async fn restore(context: &Context<'_>, arguments: &Restore) -> Result<Answer> {
    let Some(to) = &arguments.to else {
        let names: Vec<&str> = context
            .loaded
            .config
            .targets
            .keys()
            .map(String::as_str)
            .collect();
        return Err(Error::new(
            ErrorKind::Invalid,
            match names.as_slice() {
                [] => "say where to restore: --to PATH".to_owned(),
                names => format!(
                    "say where to restore: --to PATH, or --to {}",
                    names.join(" or ")
                ),
            },
        ));
    };
    let (job, backup) = find(context, &arguments.backup, arguments.label.as_deref()).await?;
    let manifest = &backup.manifest;
    let target = context.target(to, &manifest.kind)?;
    context.refuse_sink(&*target)?;
    let production = context.is_production(&*target);
    let job = context.build(job.name(), Purpose::Read, production)?;

    let mut request = RestoreRequest::default().options(arguments.options());
    if let Some(sink) = &arguments.from {
        request = request.from(sink);
    }
    if let Some(name) = &arguments.overwrite {
        request = request.overwrite(name);
    }
    if arguments.force {
        request = request.force();
    }
    if arguments.plan {
        let plan = job.plan_restore(&manifest.id, &*target, &request).await?;
        return Ok(Answer {
            exit: match plan.refused {
                Some(_) => Exit::Refused,
                None => Exit::Ok,
            },
            text: plan.to_string(),
            json: json!({
                "id": plan.id,
                "target": plan.target,
                "sink": plan.sink,
                "bytes": plan.bytes,
                "needed_bytes": plan.needed,
                "free_bytes": plan.free,
                "destroys": plan.destroys,
                "refused": plan.refused,
                "steps": plan.steps,
            }),
        });
    }
    let restored = job.restore(&manifest.id, &*target, request).await?;
    let seconds = restored.elapsed.as_secs_f64();
    let mut text = format!(
        "{}  restored into {target} from `{}`, {}, {}, {seconds:.1} s\n",
        restored.id,
        restored.sink,
        count(restored.parts as u64, "part"),
        human(restored.bytes),
    );
    for (i, step) in restored.next_steps.iter().enumerate() {
        text.push_str(&format!("  {}. {step}\n", i + 1));
    }
    let json = json!({
        "id": restored.id,
        "job": job.name(),
        "target": target.to_string(),
        "sink": restored.sink,
        "parts": restored.parts,
        "bytes": restored.bytes,
        "seconds": seconds,
        "next_steps": restored.next_steps,
    });
    Ok(Answer::ok(text, json))
}

/// With a label, the newest of the job that has it; an id must have it.
async fn find(context: &Context<'_>, name: &str, label: Option<&str>) -> Result<(Job, Backup)> {
    let Some(label) = label else {
        return context.find(name, Purpose::Read).await;
    };
    let missing = |what: &str| {
        Error::new(
            ErrorKind::NotFound,
            format!("{what} has no backup with the label {label:?}"),
        )
    };
    if context.has_job(name) {
        let job = context.job(name, Purpose::Read)?;
        let history = job.history().await?;
        let found = history
            .backups
            .into_iter()
            .find(|backup| backup.manifest.labels.iter().any(|l| l == label));
        return found
            .map(|backup| (job, backup))
            .ok_or_else(|| missing(&format!("job {name:?}")));
    }
    let (job, backup) = context.find(name, Purpose::Read).await?;
    match backup.manifest.labels.iter().any(|l| l == label) {
        true => Ok((job, backup)),
        false => Err(missing(&format!("{name:?}"))),
    }
}

/// Brings the files of a backup into a folder.
pub(crate) async fn fetch(context: &Context<'_>, arguments: &Fetch) -> Result<Answer> {
    let (job, backup) = context.find(&arguments.backup, Purpose::Read).await?;
    let id = &backup.manifest.id;
    let from = arguments.from.as_deref();
    let files = job
        .fetch(id, &arguments.out, arguments.decode, from)
        .await?;
    let mut text = String::new();
    for file in &files {
        text.push_str(&format!("{}\n", file.display()));
    }
    let json = json!({ "id": id, "job": job.name(), "files": files });
    Ok(Answer::ok(text, json))
}
