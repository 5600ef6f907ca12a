use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    Error, ErrorKind, Facts, PartWriter, Request, RestoreStep, Result, Source, async_trait,
};

use crate::client::Client;
use crate::rpc::{
    HashKvRequest, HashKvResponse, RANGE, RangeRequest, RangeResponse, StatusRequest,
    StatusResponse,
};
use crate::walker::Summary;
use crate::{DB, Etcd, KIND, snapshot};

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
    async fn backup(&self, _request: &Request, out: &PartWriter) -> Result<Facts> {
        let deadline = Duration::from(self.deadline);
        let done = tokio::time::timeout(deadline, self.take(out)).await;
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

    /// `$TARGET` is a folder, which gets the snapshot.
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
        vec![RestoreStep::new(DB, what, command)]
    }
}

impl Etcd {
    async fn take(&self, out: &PartWriter) -> Result<Facts> {
        let client = Arc::new(Client::open(&self.server, self.timeout.into()).await?);
        // What a majority agrees on now is what a snapshot has to have. A range is linearizable
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

        let bytes = snapshot::of_server(Arc::clone(&client)).await?;
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

        let header = status.header.unwrap_or_default();
        let mut facts = Facts::new()
            .with("server_version", status.version)
            .with("system_id", format!("{:x}", header.cluster_id))
            .with("member_id", format!("{:x}", header.member_id))
            .with("raft_term", header.raft_term)
            .with("revision", summary.revision)
            .with("entries", summary.entries)
            .with("hash", format!("{:x}", summary.hash))
            .with("compared", compared)
            .with("size", status.db_size);
        if let Some(keys) = summary.keys {
            facts = facts.with("keys", keys);
        }
        if let Some(revision) = summary.compacted {
            facts = facts.with("compacted", revision);
        }
        if let Some(hash) = summary.hash_kv {
            facts = facts.with("hash_kv", hash);
        }
        Ok(facts)
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
