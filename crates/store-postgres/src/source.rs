use std::time::Duration;

use backup_core::process::Program;
use backup_core::{
    ErrorKind, Facts, PartWriter, Request, RestoreStep, Result, Source, async_trait,
};

use crate::programs::Tool;
use crate::shards::{self, NO_TABLE};
use crate::snapshot::{Snapshot, Version};
use crate::sql::Session;
use crate::{DUMP, GLOBALS, KIND, LARGE_OBJECTS, POST_DATA, PRE_DATA, Postgres};

#[async_trait]
impl Source for Postgres {
    fn kind(&self) -> &str {
        KIND
    }

    fn parts_at_once(&self) -> usize {
        self.shards.max(1)
    }

    /// Facts: `server_version`, `client_version`, `system_id` (where the role may know it),
    /// `database`, `size`, `encoding`, `collate`, `ctype`, `lsn`, `role_passwords` (whether
    /// [`GLOBALS`] has them), `rows` by table and `rows_estimated` for those that could not be
    /// counted in time.
    ///
    /// A role without rights to a table, a change of a table that cannot wait, a program older
    /// than the server, and whatever ends a program or the snapshot early are errors. Dropped:
    /// the programs are killed and the transaction ends.
    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        let server = &self.server;
        let session = Session::open(server).await?;
        let version = Version::of(&session, server).await?;
        let tool = async |name| self.programs.tool(name, server, version.major).await;
        let (dump, globals) = (tool("pg_dump").await?, tool("pg_dumpall").await?);
        let client_version = dump.version.clone();

        let patience = Duration::from(self.lock_timeout);
        let wait = format!("--lock-wait-timeout={}", patience.as_millis().max(1));
        let globals = globals
            .arg(format!("--database={}", server.database))
            .arg("--globals-only")
            .arg(wait.clone());
        let globals = match version.superuser {
            true => globals,
            // Only a superuser may read pg_authid.
            false => globals.arg("--no-role-passwords"),
        };
        write(out, GLOBALS, globals.program()).await?;

        let snapshot = Snapshot::open(session, server, patience).await?;
        let dump = dump
            .arg("--format=custom")
            .arg("--compress=0")
            .arg(wait)
            .arg(format!("--snapshot={}", snapshot.id));
        let facts = snapshot.facts(server).await?;
        // At once: the sooner pg_dump has its own locks, the shorter somebody else waits for both.
        let dumped = self.dump(out, &snapshot, dump);
        let ((), (rows, estimated)) =
            tokio::try_join!(dumped, snapshot.count(self.count_for.into()))?;
        snapshot.close().await?;
        Ok(facts
            .with("server_version", version.text)
            .with("client_version", client_version)
            .with("role_passwords", version.superuser)
            .with("rows", rows)
            .with("rows_estimated", estimated))
    }

    /// `$TARGET` is the connection string of a new, empty database. `$GLOBALS`, where set, names
    /// the file that gets the roles.
    fn restore_steps(&self) -> Vec<RestoreStep> {
        let globals = RestoreStep::new(
            GLOBALS,
            "roles and tablespaces of the whole server, written to the file that GLOBALS names, \
             if it is set; a superuser feeds them to `psql` where they are wanted",
            ["dd", "bs=1M", "of=${GLOBALS:-/dev/null}"],
        );
        let archives: Vec<String> = match self.shards {
            0 | 1 => vec![DUMP.to_owned()],
            shards => [PRE_DATA.to_owned()]
                .into_iter()
                .chain((1..=shards).map(shards::part))
                .chain([LARGE_OBJECTS.to_owned(), POST_DATA.to_owned()])
                .collect(),
        };
        let archives = archives.into_iter().map(restore_archive);
        std::iter::once(globals).chain(archives).collect()
    }
}

/// How a part for `pg_restore` comes back by itself.
pub(crate) fn restore_archive(part: impl Into<String>) -> RestoreStep {
    RestoreStep::new(
        part,
        "the database, into a new and empty one (`createdb`), of which TARGET is the connection \
         string; without --no-owner its roles must exist",
        [
            "pg_restore",
            "--exit-on-error",
            "--no-owner",
            "-d",
            "$TARGET",
        ],
    )
}

impl Postgres {
    async fn dump(&self, out: &PartWriter, snapshot: &Snapshot, dump: Tool) -> Result<()> {
        if self.shards < 2 {
            return write(out, DUMP, dump.program()).await;
        }
        let section = |name: &str| dump.clone().arg(format!("--section={name}"));
        write(out, PRE_DATA, section("pre-data").program()).await?;
        let shards = shards::balance(&snapshot.tables, self.shards);
        let data = shards.iter().enumerate().map(|(i, shard)| {
            let arguments = shard.arguments().into_iter();
            let tool = arguments.fold(section("data"), Tool::arg);
            (shards::part(i + 1), tool)
        });
        let large_objects = snapshot.large_objects.then(|| {
            let tool = section("data").arg("--blobs").arg(NO_TABLE);
            (LARGE_OBJECTS.to_owned(), tool)
        });
        let parts = data.chain(large_objects);
        let parts =
            parts.map(|(part, tool)| async move { write(out, &part, tool.program()).await });
        futures::future::try_join_all(parts).await?;
        write(out, POST_DATA, section("post-data").program()).await
    }
}

async fn write(out: &PartWriter, part: &str, program: Program<'_>) -> Result<()> {
    out.write(part, program.output(ErrorKind::Source)?).await
}
