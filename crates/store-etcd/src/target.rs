use std::collections::HashMap;
use std::time::{Duration, Instant};

use backup_core::{
    Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target, async_trait,
};

use crate::client::Client;
use crate::latest::Latest;
use crate::rpc::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, KeyValue, LeaseGrantRequest,
    LeaseGrantResponse, PutRequest, RANGE, RangeRequest, RangeResponse, RequestOp, TxnRequest,
    TxnResponse,
};
use crate::server::range;
use crate::{Conflict, EtcdServer, KIND, Leases, reach};

/// A server takes 128 operations in a transaction (`--max-txn-ops`), those in its transactions
/// counted too, and 1.5 MiB (`--max-request-bytes`).
const OPERATIONS: usize = 60;
const BYTES: usize = 1 << 20;

#[async_trait]
impl Target for EtcdServer {
    fn kind(&self) -> &str {
        KIND
    }

    /// Empty: no key below the prefix, or keys that stay as they are (`conflict = "skip"`).
    async fn occupancy(&self) -> Result<Occupancy> {
        let client = Client::open(&self.server, self.timeout.into()).await?;
        Ok(match self.count(&client).await? {
            0 => Occupancy::Empty,
            _ if self.conflict == Conflict::Skip => Occupancy::Empty,
            count => Occupancy::Holds(match self.prefix.is_empty() {
                true => format!("{count} keys"),
                false => format!("{count} keys below `{}`", self.prefix.escape_ascii()),
            }),
        })
    }

    /// Keys come in many transactions.
    fn publishes_atomically(&self) -> bool {
        false
    }

    /// Puts the last value of every key below the prefix, in transactions of up to 60, and counts what
    /// is there then: that at the option `revision` where it is given. Reads the backup three times, and holds some 60 bytes for each key.
    ///
    /// What comes back are values, and leases if they are wanted: not revisions, history, users
    /// and roles. Refused before anything is written: a damaged snapshot, and one of a Kubernetes
    /// control plane unless `kubernetes` is set.
    ///
    /// On an error, and when dropped, keys that were written stay.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        let wanted = reach::wanted(options)?;
        let latest = Latest::of(parts, &self.prefix, wanted).await?;
        if latest.kubernetes && !self.kubernetes {
            return Err(Error::new(
                ErrorKind::Refused,
                "the backup is of a Kubernetes control plane, whose controllers remember revisions: \
                 restore a data directory (`path`), or set `kubernetes` to put its keys nevertheless",
            ));
        }
        let client = Client::open(&self.server, self.timeout.into()).await?;
        let mode = match (self.conflict, options.replace) {
            (Conflict::Fail, true) => {
                let (key, range_end) = range(&self.prefix);
                let everything = DeleteRangeRequest { key, range_end };
                let _: DeleteRangeResponse = client.ask(DELETE_RANGE, everything).await?;
                Conflict::Fail
            }
            // Nobody agreed to replace what came since.
            (Conflict::Overwrite, false) => Conflict::Fail,
            (mode, _) => mode,
        };
        let mut writer = Writer {
            client: &client,
            mode,
            leases: (self.leases == Leases::Grant).then(HashMap::new),
            granted: &latest.leases,
            leased: 0,
            batch: Vec::new(),
            bytes: 0,
        };
        let mut values = latest.values(parts).await?;
        while let Some(found) = values.next().await? {
            for value in found {
                writer.put(value).await?;
            }
        }
        writer.flush().await?;
        let leased = writer.leased;
        parts.require_complete(parts.names())?;
        self.check(&client, mode, latest.len(), leased).await
    }

    fn next_steps(&self, _options: &RestoreOptions) -> Vec<String> {
        vec!["users, roles and revisions are not restored: whoever watches starts afresh".into()]
    }
}

impl EtcdServer {
    async fn count(&self, client: &Client) -> Result<u64> {
        let (key, range_end) = range(&self.prefix);
        let question = RangeRequest {
            key,
            range_end,
            count_only: true,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = client.ask(RANGE, question).await?;
        Ok(answer.count.unsigned_abs())
    }

    /// Where there was nothing, there is now what was put; of what has a lease some may be over.
    async fn check(&self, client: &Client, mode: Conflict, put: u64, leased: u64) -> Result<()> {
        if mode != Conflict::Fail {
            return Ok(());
        }
        let count = self.count(client).await?;
        if (put - leased..=put).contains(&count) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Source,
            format!("{self} holds {count} keys after {put} were put: somebody else writes there"),
        ))
    }
}

/// Puts that wait for their transaction.
struct Writer<'a> {
    client: &'a Client,
    mode: Conflict,
    /// The leases that were granted, by the number that they had, and when. `None`: they are dropped.
    leases: Option<HashMap<i64, (i64, Instant)>>,
    /// How long each was granted for, in seconds.
    granted: &'a HashMap<i64, i64>,
    leased: u64,
    /// With the leases that they had.
    batch: Vec<PutRequest>,
    bytes: usize,
}

impl Writer<'_> {
    async fn put(&mut self, row: KeyValue) -> Result<()> {
        let size = row.key.len() + row.value.len();
        if self.batch.len() == OPERATIONS || (self.bytes + size > BYTES && !self.batch.is_empty()) {
            self.flush().await?;
        }
        self.bytes += size;
        self.batch.push(PutRequest {
            key: row.key,
            value: row.value,
            lease: row.lease,
        });
        Ok(())
    }

    /// A lease of the same length for the one that a key had, with most of it left: keys of one lease may
    /// be minutes apart. 0: none.
    async fn lease(&mut self, old: i64) -> Result<i64> {
        let (Some(leases), Some(ttl)) = (&mut self.leases, self.granted.get(&old)) else {
            return Ok(0);
        };
        let third = Duration::from_secs(ttl.unsigned_abs()) / 3;
        if let Some((lease, since)) = leases.get(&old)
            && since.elapsed() < third
        {
            return Ok(*lease);
        }
        let question = LeaseGrantRequest { ttl: *ttl };
        let since = Instant::now();
        let lease: LeaseGrantResponse = self.client.ask(LEASE_GRANT, question).await?;
        leases.insert(old, (lease.id, since));
        Ok(lease.id)
    }

    async fn flush(&mut self) -> Result<()> {
        let mut puts = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if puts.is_empty() {
            return Ok(());
        }
        for put in &mut puts {
            put.lease = self.lease(put.lease).await?;
            self.leased += u64::from(put.lease != 0);
        }
        let compare = match self.mode {
            Conflict::Fail => puts.iter().map(absent).collect(),
            Conflict::Skip | Conflict::Overwrite => Vec::new(),
        };
        let operation = |put: PutRequest| match self.mode {
            Conflict::Skip => RequestOp {
                put: None,
                txn: Some(TxnRequest {
                    compare: vec![absent(&put)],
                    success: vec![operation(put)],
                }),
            },
            Conflict::Fail | Conflict::Overwrite => operation(put),
        };
        let question = TxnRequest {
            compare,
            success: puts.into_iter().map(operation).collect(),
        };
        let answer: TxnResponse = self.client.ask(TXN, question).await?;
        match answer.succeeded {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Refused,
                "somebody else wrote one of the keys that are restored; nothing was overwritten",
            )),
        }
    }
}

fn operation(put: PutRequest) -> RequestOp {
    RequestOp {
        put: Some(put),
        txn: None,
    }
}

/// That there is no such key.
fn absent(put: &PutRequest) -> Compare {
    Compare {
        result: 0,
        target: 1,
        key: put.key.clone(),
        create_revision: Some(0),
    }
}

const TXN: &str = "/etcdserverpb.KV/Txn";
const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
