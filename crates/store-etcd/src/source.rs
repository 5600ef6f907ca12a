use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    Error, ErrorKind, Facts, PartWriter, Request, RestoreStep, Result, Source, async_trait,
};
use serde_json::Value;

use crate::changes::{self, Changes, Mark};
use crate::client::Client;
use crate::rpc::{
    AuthStatusRequest, AuthStatusResponse, HashKvRequest, HashKvResponse, RANGE, RangeRequest,
    RangeResponse, StatusRequest, StatusResponse,
};
use crate::walker::Summary;
use crate::{DB, Etcd, KIND, snapshot};

/// What `RESTORE.md` calls the changes.
const CHANGES: &str = "changes.jsonl";

#[async_trait]
impl Source for Etcd {
    fn kind(&self) -> &str {
        KIND
    }

    /// Facts: `server_version`, `system_id` (the cluster's id, hexadecimal), `member_id`, `raft_term`,
    /// `revision` (the last change in the snapshot), `entries` (the changes that are kept), `keys` (not of
    /// more than half a million changes), `compacted` (the last revision that was given up), `hash` (as `etcdutl snapshot status` has
    /// it), `hash_kv`, `compared` (whether the server gave the same `hash_kv`, or could not be asked:
    /// during a compaction), `size`.
    ///
    /// A snapshot that is older than what the cluster had agreed on when it began, or that is not what
    /// the server says it has at that revision, is an error: the member is behind, or damaged. So are
    /// a server that goes away, or says nothing for longer than the timeout, a deadline that passed,
    /// and a user without the role `root`. Dropped: the connection closes.
    ///
    /// Where the job is incremental, a backup is what changed since its parent: each revision, as etcd
    /// tells whoever watches. It is a full one where etcd gave up some of them, where it was restored or
    /// upgraded meanwhile, where users or roles changed (3.4 does not tell), and after one that failed. Of changes the facts are `server_version`, `system_id`,
    /// `member_id`, `raft_term`, `revision`, `size` and `changes`, how many revisions they are.
    async fn backup(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
        let deadline = Duration::from(self.deadline);
        let done = tokio::time::timeout(deadline, self.take(request, out)).await;
        done.unwrap_or_else(|_| {
            let seconds = deadline.as_secs_f64();
            Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the snapshot of {} took longer than the `deadline` of {seconds} s",
                    self.server
                ),
            ))
        })
    }

    fn incremental(&self) -> bool {
        true
    }

    /// `$TARGET` is a folder, which gets the snapshot, and one file with all changes.
    fn restore_steps(&self) -> Vec<RestoreStep> {
        let of = format!("of=$TARGET/{DB}");
        let what = "the snapshot, into the folder TARGET. Then, with etcdutl of the server's minor version: \
                    `etcdutl snapshot restore \"$TARGET/snapshot.db\" --data-dir \"$TARGET/data\" \
                    --bump-revision 1000000000 --mark-compacted`, and start etcd on that data directory. \
                    For a cluster do it once for each member, with its --name, --initial-cluster and \
                    --initial-advertise-peer-urls. The revision is raised so that whoever watched the \
                    old cluster starts afresh; tools before 3.4.27 and 3.5.10 lack these two options, \
                    and 3.4 has `etcdctl snapshot restore` instead";
        let command = ["dd", "bs=1M", "conv=excl,fsync", &of];
        let snapshot = RestoreStep::new(DB, what, command);
        let of = format!("of=$TARGET/{CHANGES}");
        let what = "what changed since, into one file: a transaction in each line. Once etcd runs on the \
                    restored data directory: `(while IFS= read -r txn; do printf %s \"$txn\" | curl -sSf -o \
                    /dev/null --data-binary @- http://127.0.0.1:2379/v3/kv/txn || exit 1; done) \
                    <\"$TARGET/changes.jsonl\"`. Before 3.4 `v3` is `v3beta`; a transaction of more than \
                    128 changes needs etcd's --max-txn-ops, a large one --max-request-bytes; with users, \
                    give curl -H \"Authorization: TOKEN\", the token from /v3/auth/authenticate. Leases \
                    do not come back this way: keys that had one since then stay";
        let command = ["dd", "bs=1M", "oflag=append", "conv=notrunc,fsync", &of];
        vec![snapshot, RestoreStep::new("changes-*.jsonl", what, command)]
    }
}

/// `None` before 3.5, where nobody tells.
async fn auth_revision(client: &Client) -> Result<Option<u64>> {
    let asked = client.ask("/etcdserverpb.Auth/AuthStatus", AuthStatusRequest {});
    match asked.await {
        Ok(AuthStatusResponse { auth_revision }) => Ok(Some(auth_revision)),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

/// `3.6` of `3.6.16`.
pub(crate) fn minor(version: &str) -> Option<String> {
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next()?, numbers.next()?);
    Some(format!("{major}.{minor}"))
}

impl Etcd {
    async fn take(&self, request: &Request, out: &PartWriter) -> Result<Facts> {
        let client = Arc::new(Client::open(&self.server, self.timeout.into()).await?);
        // What a majority agrees on now is what a backup has to have. A range is linearizable
        // unless it asks not to be.
        let everything = RangeRequest {
            key: vec![0],
            range_end: vec![0],
            limit: 1,
            keys_only: true,
            ..RangeRequest::default()
        };
        let agreed: RangeResponse = client.ask(RANGE, everything).await?;
        let agreed = agreed.header.map_or(0, |header| header.revision);
        let status: StatusResponse = client
            .ask("/etcdserverpb.Maintenance/Status", StatusRequest {})
            .await?;
        let header = status.header.unwrap_or_default();
        let facts = Facts::new()
            .with("server_version", status.version)
            .with("system_id", format!("{:x}", header.cluster_id))
            .with("member_id", format!("{:x}", header.member_id))
            .with("raft_term", header.raft_term)
            .with("size", status.db_size);

        let auth = match request.state_dir.is_some() {
            true => auth_revision(&client).await?,
            false => None,
        };
        let parent = request.parent.as_deref();
        let mark = parent.and_then(|parent| Some((parent, Mark::take(request, parent)?)));
        // Users and roles are in a snapshot alone, and `etcdutl` must be of its version.
        let mark = mark.filter(|(parent, mark)| {
            let had = parent.facts.get("server_version").and_then(Value::as_str);
            let has = facts.get("server_version").and_then(Value::as_str);
            mark.cluster == header.cluster_id
                && mark.auth == auth
                && had.and_then(minor) == has.and_then(minor)
        });
        if let Some((parent, mark)) = mark
            && let Some(changes) = Changes::since(Arc::clone(&client), &mark, agreed).await?
        {
            out.build_on(parent)?;
            let last = match changes.part() {
                None => changes.last(),
                Some(part) => {
                    let (lines, tell) = changes.into_lines();
                    out.write(&part, lines).await?;
                    snapshot::told(tell)?
                }
            };
            Mark::leave(request, header.cluster_id, auth, &last);
            return Ok(facts
                .with("revision", agreed)
                .with("changes", agreed - mark.revision));
        }
        let (client, facts) = self.take_snapshot(client, agreed, facts, out).await?;
        if request.state_dir.is_some() {
            let revision = facts.get("revision").and_then(Value::as_i64).unwrap_or(0);
            match changes::last(client, revision).await {
                Ok(Some(last)) => Mark::leave(request, header.cluster_id, auth, &last),
                Ok(None) => {}
                Err(error) => tracing::warn!("{}; the next backup is a full one", error.chain()),
            }
        }
        Ok(facts)
    }

    async fn take_snapshot(
        &self,
        client: Arc<Client>,
        agreed: i64,
        facts: Facts,
        out: &PartWriter,
    ) -> Result<(Arc<Client>, Facts)> {
        let bytes = snapshot::of_server(client).await?;
        let summary = snapshot::write(bytes, out).await?;
        if summary.revision < agreed {
            return Err(Error::new(
                ErrorKind::Source,
                format!(
                    "{} is behind: its snapshot ends at revision {}, and the cluster was at {agreed}: ask another member",
                    self.server, summary.revision
                ),
            ));
        }
        // A token of etcd lives for five minutes by default, and sinks may have taken longer.
        let client = Client::open(&self.server, self.timeout.into()).await?;
        let compared = self.compare(&client, &summary).await?;

        let mut facts = facts
            .with("revision", summary.revision)
            .with("entries", summary.entries)
            .with("hash", format!("{:x}", summary.hash))
            .with("compared", compared);
        if let Some(keys) = summary.keys {
            facts = facts.with("keys", keys);
        }
        if let Some(revision) = summary.compacted {
            facts = facts.with("compacted", revision);
        }
        if let Some(hash) = summary.hash_kv {
            facts = facts.with("hash_kv", hash);
        }
        Ok((Arc::new(client), facts))
    }

    /// Whether the server has the same changes at the same revision. `false` where that cannot be
    /// told, because one of both was compacted meanwhile.
    async fn compare(&self, client: &Client, summary: &Summary) -> Result<bool> {
        let Some(hash) = summary.hash_kv else {
            return Ok(false);
        };
        let question = HashKvRequest {
            revision: summary.revision,
        };
        let asked = client
            .ask::<_, HashKvResponse>("/etcdserverpb.Maintenance/HashKV", question)
            .await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) if error.to_string().contains("has been compacted") => return Ok(false),
            Err(error) => return Err(error),
        };
        // What was summed up during a compaction is given with the one before it.
        match answer.hash == hash {
            true => Ok(true),
            false if answer.compact_revision != summary.compacted.unwrap_or(-1) => Ok(false),
            false => Err(Error::new(
                ErrorKind::Source,
                format!(
                    "the snapshot of {} is not what it has at revision {}: HashKV is {} there and {hash} in the snapshot",
                    self.server, summary.revision, answer.hash
                ),
            )),
        }
    }
}
