//! How much room a server has, where it runs beside us.

use std::path::Path;

use backup_core::{Result, free_space};

use crate::server::Server;
use crate::sql::{Session, failed};

/// No function of PostgreSQL tells. Where the process that serves us is one of this machine, its
/// data folder is too, and the file system is asked; else, and where the role may not know the
/// folder, nobody can tell.
pub(crate) async fn free(server: &Server) -> Result<Option<u64>> {
    let session = Session::beside(server).await?;
    let row = session
        .query_one(
            "select pg_backend_pid(), (select setting from pg_settings where name = 'data_directory')",
            &[],
        )
        .await
        .map_err(|e| failed(&format!("ask {server} for its room"), e))?;
    let (process, folder): (i32, Option<String>) = (row.get(0), row.get(1));
    // `postgres: orders backup 127.0.0.1(4711) SELECT`. In a container it has another number.
    let title = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let here = title.starts_with(b"postgres: ");
    Ok(folder
        .filter(|_| here)
        .and_then(|folder| free_space(Path::new(&folder))))
}
