//! One database takes the place of another, in one step.

use std::time::Duration;

use backup_core::Result;
use tokio::time::sleep;

use crate::create::{Temporary, inherit, name};
use crate::server::Server;
use crate::sql::{Session, ident, literal};

/// Gives `temporary` the name of `server`'s database, and drops the one that had it, last.
///
/// Not to be dropped halfway: the caller runs it as a task of its own.
pub(crate) async fn swap(temporary: Temporary, server: Server) -> Result<()> {
    let session = Session::beside(&server).await?;
    let old = &server.database;
    let exists = session
        .query_opt("select from pg_database where datname = $1::text", &[old])
        .await;
    let exists = exists
        .map_err(|e| crate::sql::failed("look for the database", e))?
        .is_some();
    let publish = format!(
        "alter database {} rename to {}",
        ident(&temporary.server.database),
        ident(old)
    );
    if !exists {
        session.run(&format!("publish {server}"), &publish).await?;
        temporary.keep();
        return Ok(());
    }
    inherit(&session, old, &temporary.server.database).await?;
    let aside = name(old, "replaced")?;
    let renames = format!(
        "begin; alter database {} rename to {}; {publish}; commit",
        ident(old),
        ident(&aside)
    );
    // A rename waits for those who are connected, five seconds at most, and lets nobody in
    // meanwhile (CountOtherDBBackends in the server): they are ended while it waits.
    let others = Session::beside(&server).await?;
    let what = format!("replace {server}");
    let renamed = tokio::select! {
        renamed = session.run(&what, &renames) => renamed,
        never = end_connections(&others, old) => never,
    };
    if renamed.is_err() {
        let _ = session.run(&what, "rollback").await;
    }
    renamed?;
    temporary.keep();
    let drop = format!("drop database {} with (force)", ident(&aside));
    if let Err(error) = session.run("drop what was replaced", &drop).await {
        // The restore is done; this is only room to be won back.
        tracing::warn!(database = %aside, error = %error.chain(), "what was replaced stays behind: drop it");
    }
    Ok(())
}

async fn end_connections(session: &Session, database: &str) -> Result<()> {
    let end = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = {} and pid <> pg_backend_pid()",
        literal(database)
    );
    loop {
        session
            .run(&format!("end connections to `{database}`"), &end)
            .await?;
        sleep(Duration::from_millis(100)).await;
    }
}
