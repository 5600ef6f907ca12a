use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backup_core::{
    Error, ErrorKind, Facts, PartWriter, Request, RestoreStep, Result, Source, async_trait,
};

use crate::capture::{self, Capture, told, walked};
use crate::cluster;
use crate::connection::Connection;
use crate::facts::{self, Info};
use crate::options::Place;
use crate::rdb::{Summary, Walker};
use crate::server::Server;
use crate::{DUMP, KIND, Redis, TOPOLOGY};

#[async_trait]
impl Source for Redis {
    fn kind(&self) -> &str {
        KIND
    }

    /// Facts: `server` (`redis` or `valkey`), `server_version`, `system_id` (its `run_id`),
    /// `offset` (the moment), `magic` and `rdb_version` (the format), `bytes`, `crc` (`checked`
    /// or `disabled`), `structure` (`checked`, or `unchecked` for a format that is newer than this
    /// code), `keys` by database, `expires`, `functions`, `modules`, `created`. Of a cluster the
    /// same for each of its `shards`.
    ///
    /// A server that goes away, says nothing for longer than the timeout, has no link to its own
    /// master or may not be asked, and a snapshot that is not whole, are errors. Dropped: the
    /// connection closes, and the server gives up.
    async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
        let patience = Duration::from(self.timeout);
        let server = match &self.place {
            Place::File(path) => return self.back_up_file(path, request, out).await,
            Place::Server(server) => server.clone(),
            Place::Sentinel(sentinel) => sentinel.master(patience).await?,
        };
        if self.cluster {
            return cluster::back_up(self, &server, out).await;
        }
        self.back_up(&server, DUMP, out).await
    }

    /// `$TARGET` is the folder of a server that does not run, and has no `dump.rdb` in it.
    fn restore_steps(&self) -> Vec<RestoreStep> {
        let write = |part: &str, what: &str| {
            let of = format!("of=$TARGET/{part}");
            RestoreStep::new(part, what, ["dd", "bs=1M", "conv=excl,fsync", &of])
        };
        match self.cluster {
            false => vec![write(
                DUMP,
                "the file from which a server starts. TARGET is its folder (`dir`), without a \
                 dump.rdb and without an `appendonlydir`, and no server runs there. Then start \
                 `redis-server --dir \"$TARGET\" --appendonly no`: with `appendonly yes` it would \
                 come up empty. Where that is wanted, `CONFIG SET appendonly yes` afterwards",
            )],
            true => vec![write(
                TOPOLOGY,
                "which slots each shard has. Every other part is the dump.rdb of a new node, with \
                 `cluster-enabled yes`, `appendonly no` and no nodes.conf, that takes these slots",
            )],
        }
    }
}

impl Redis {
    /// One server into one part.
    pub(crate) async fn back_up(
        &self,
        server: &Server,
        part: &str,
        out: &PartWriter,
    ) -> Result<Facts> {
        let patience = Duration::from(self.timeout);
        let mut connection = Connection::open(server, patience).await?;
        let info = Info::of(&mut connection).await?.unwrap_or_default();
        drop(connection);
        if info.is("cluster_enabled", "1") && !self.cluster {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{server} is one node of a cluster: set `cluster = true` for all of them"),
            ));
        }
        let capture = Capture::begin(server, patience).await?;
        let moment = Facts::new().with("offset", capture.offset);
        let (bytes, tell) = walked(capture.bytes(), Walker::new(), self.allow_unchecked);
        out.write(part, bytes).await?;
        let (summary, ()) = told(tell)?;
        Ok(identified(
            facts::of_summary(moment, &summary),
            &info,
            &summary,
        ))
    }

    async fn back_up_file(
        &self,
        path: &Path,
        request: &Request,
        out: &PartWriter,
    ) -> Result<Facts> {
        let bytes = capture::file(path)?;
        let (bytes, tell) = walked(bytes, Walker::new(), self.allow_unchecked);
        out.write(DUMP, bytes).await?;
        let (summary, ()) = told(tell)?;
        if let Some(limit) = self.max_age {
            let created = summary.content.as_ref().and_then(facts::created);
            let created = created.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            let begun: SystemTime = request.id.time();
            let old = created.is_none_or(|at| begun > at + Duration::from(limit));
            if old {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "{} was not saved within {limit}: see whether its server fails to save",
                        path.display()
                    ),
                ));
            }
        }
        let facts = facts::of_summary(Facts::new(), &summary);
        Ok(identified(facts, &Info::default(), &summary))
    }
}

/// Adds which server it was: as it says itself, else as its snapshot does.
fn identified(facts: Facts, info: &Info, summary: &Summary) -> Facts {
    let aux = summary.content.as_ref().map(|content| &content.aux);
    let noted = |name| aux.and_then(|aux| aux.get(name)).map(String::as_str);
    let (server, version) = match (info.server(), noted("valkey-ver"), noted("redis-ver")) {
        ((server, version), ..) if !version.is_empty() => (server, Some(version)),
        (_, Some(version), _) => ("valkey", Some(version)),
        (_, None, version) => ("redis", version),
    };
    let mut facts = facts.with("server", server);
    if let Some(version) = version {
        facts = facts.with("server_version", version);
    }
    match info.get("run_id") {
        "" => facts,
        id => facts.with("system_id", id),
    }
}
