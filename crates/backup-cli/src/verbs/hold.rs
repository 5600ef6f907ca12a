//! `hold` and `release`: what no policy may delete.

use backup_core::Result;
use serde_json::json;

use crate::args::{Hold, Which};
use crate::context::{Context, Purpose};
use crate::exit::Answer;

/// Keeps a backup, in every sink that has it, until it is released.
pub(crate) async fn hold(context: &Context<'_>, arguments: &Hold) -> Result<Answer> {
    let (job, backup) = context.find(&arguments.backup, Purpose::Write).await?;
    let id = &backup.manifest.id;
    job.hold(id, &arguments.reason).await?;
    Ok(Answer::ok(
        format!("{id}  held: {}\n", arguments.reason),
        json!({ "id": id, "job": job.name(), "held": arguments.reason }),
    ))
}

/// Ends a hold. A backup that is not held stays as it is.
pub(crate) async fn release(context: &Context<'_>, arguments: &Which) -> Result<Answer> {
    let (job, backup) = context.find(&arguments.backup, Purpose::Write).await?;
    let id = &backup.manifest.id;
    if backup.held.is_none() {
        return Ok(Answer::ok(
            format!("{id}  is not held\n"),
            json!({ "id": id, "job": job.name(), "released": false }),
        ));
    }
    job.release(id).await?;
    Ok(Answer::ok(
        format!("{id}  released\n"),
        json!({ "id": id, "job": job.name(), "released": true }),
    ))
}
