//! One database takes the place of another, in one step.

use std::time::Duration;

use backup_core::Result;
use tokio::time::sleep;

use crate::create::{Temporary, inherit, name, remove};
use crate::server::Server;
use crate::sql::{Session, ident, literal};

/// Gives `temporary` the name of `server`'s database, and drops the one that had it, last. On an
/// error `temporary` is gone, and the other as it was.
///
/// Not to be dropped halfway: the caller runs it as a task of its own.
pub(crate) async fn swap(temporary: Temporary, server: Server) -> Result<()> {
    match rename(&temporary.server, &server).await {
        Ok(aside) => {
            temporary.keep();
            if let Some(aside) = aside {
                remove(&server, &aside).await;
            }
            Ok(())
        }
        Err(error) => {
            temporary.remove().await;
            Err(error)
        }
    }
}

/// The name that the replaced database has now, if there was one.
async fn rename(temporary: &Server, server: &Server) -> Result<Option<String>> {
    let session = Session::beside(server).await?;
    let old = &server.database;
    let exists = session
        .query_opt("select from pg_database where datname = $1::text", &[old])
        .await;
    let exists = exists
        .map_err(|e| crate::sql::failed("look for the database", e))?
        .is_some();
    let publish = format!(
        "alter database {} rename to {}",
        ident(&temporary.database),
        ident(old)
    );
    if !exists {
        session.run(&format!("publish {server}"), &publish).await?;
        return Ok(None);
    }
    inherit(&session, old, &temporary.database).await?;
    let aside = name(old, "replaced")?;
    let renames = format!(
        "begin; alter database {} rename to {}; {publish}; commit",
        ident(old),
        ident(&aside)
    );
    // A rename waits for those who are connected, five seconds at most, and lets nobody in
    // meanwhile (CountOtherDBBackends in the server): they are ended while it waits.
    let others = Session::beside(server).await?;
    let what = format!("replace {server}");
    let mut refused = None;
    let ending = async {
        refused = end_connections(&others, old).await.err();
        // Perhaps nobody has to be ended: the rename tells.
        std::future::pending().await
    };
    let renamed = tokio::select! {
        renamed = session.run(&what, &renames) => renamed,
        never = ending => never,
    };
    // A failed one is rolled back when the session closes.
    match (renamed, refused) {
        (Ok(()), _) => Ok(Some(aside)),
        (Err(error), Some(refused)) => Err(refused.context(error.to_string())),
        (Err(error), None) => Err(error),
    }
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
