use std::time::Duration;

use backup_core::{
    Error, ErrorKind, Occupancy, PartReader, RestoreOptions, Result, Target, async_trait,
};

use crate::attached::Attached;
use crate::capture::{Capture, told, walked};
use crate::connection::Connection;
use crate::durable::{POLL, durable};
use crate::facts::Info;
use crate::options::Restoring;
use crate::preflight;
use crate::primary::{Primary, Replica};
use crate::rdb::{Digest, Summary, Walker};
use crate::{Check, DUMP, KIND, RedisServer};

#[async_trait]
impl Target for RedisServer {
    fn kind(&self) -> &str {
        KIND
    }

    /// Empty: no key in any database, and no library of functions.
    async fn occupancy(&self) -> Result<Occupancy> {
        let mut connection = Connection::open(&self.server, self.timeout.into()).await?;
        let info = preflight::info(&mut connection).await?;
        preflight::not_loading(&info, &connection.name)?;
        Ok(held(&info))
    }

    /// A server drops what it has when it begins to load.
    fn publishes_atomically(&self) -> bool {
        false
    }

    /// Makes the server a replica of ours (`REPLICAOF`), gives it the backup as a full
    /// resynchronisation, looks at what it has then, and makes it a primary again (`REPLICAOF NO
    /// ONE`). Ends when what the server persists is on its disk: the rewrite of its append-only
    /// file, or a save. While it is a replica nobody can write, and nothing expires; its own
    /// replicas follow it.
    ///
    /// Refused before anything is touched: a node of a cluster, a replica, a server whose version
    /// cannot load the backup, or that has too few databases or not the modules. One that has more
    /// than its `maxmemory` afterwards, and would throw keys away, is an error.
    ///
    /// Options: `part` and `check`, as the setters of the same names.
    ///
    /// On an error, and when dropped, the server is made a primary again; dropped, in the background
    /// and with a warning, since a process that ends cuts that off ([`backup_core::settled`]). It
    /// has then what it had, if it did not begin to load (with `repl-diskless-load swapdb`: if it
    /// did not load all); else nothing, or a part. The error says what it holds.
    async fn restore(&self, parts: &PartReader, options: &RestoreOptions) -> Result<()> {
        let how = self.restoring.with(options)?;
        let part = how.part.as_deref().unwrap_or(DUMP);
        let patience = Duration::from(self.timeout);
        let mut control = Connection::open(&self.server, patience).await?;
        let info = preflight::check(&mut control, parts, part).await?;
        if let Occupancy::Holds(what) = held(&info)
            && !options.replace
        {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{self} was empty when the restore began, and now holds {what}"),
            ));
        }
        let primary = Primary::listen(self.listen, control.ends.0.ip()).await?;
        let advertised = self.advertise.clone().unwrap_or_else(|| primary.address());
        let attached = Attached::to(&self.server, &mut control, &advertised, patience).await?;
        let restored = self.replicate(parts, part, how.check, &primary, info.get("master_replid"));
        let restored = async {
            restored.await?;
            self.fits().await
        };
        if let Err(error) = restored.await {
            return Err(attached.give_up(error).await);
        }
        parts.require_complete([part])?;
        attached.detach().await?;
        // Not the first one: it was idle for as long as it took, and a server may end such.
        durable(&mut Connection::open(&self.server, patience).await?).await
    }
}

impl RedisServer {
    async fn replicate(
        &self,
        parts: &PartReader,
        part: &str,
        check: Check,
        primary: &Primary,
        replid: &str,
    ) -> Result<()> {
        let patience = Duration::from(self.timeout);
        let mut replica = primary.accept(replid, patience).await?;
        let length = parts.manifest().part(part).map_or(0, |part| part.plain.len);
        let (bytes, tell) = walked(
            parts.open(part).await?,
            Walker::with(Digest::default()),
            true,
        );
        replica.send(bytes, length).await?;
        let sent = told(tell)?;
        let look = async {
            self.loaded().await?;
            self.compare(sent, check).await
        };
        tokio::select! {
            looked = look => looked,
            error = Replica::keep(&mut replica) => Err(error),
        }
    }

    /// Whether it keeps what it has: a replica heeds no `maxmemory`, and a primary does.
    async fn fits(&self) -> Result<()> {
        let mut connection = Connection::open(&self.server, self.timeout.into()).await?;
        let info = preflight::info(&mut connection).await?;
        let number = |name| info.get(name).parse::<u64>().unwrap_or(0);
        // Buffers for replicas do not count (`getMaxmemoryState`).
        let used = number("used_memory").saturating_sub(number("mem_not_counted_for_evict"));
        let (most, policy) = (number("maxmemory"), info.get("maxmemory_policy"));
        let evicts = policy.starts_with("allkeys-") || policy.starts_with("volatile-");
        if !evicts || most == 0 || used <= most {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{self} has taken {used} bytes for the backup, and with `maxmemory {most}` and \
                 `maxmemory-policy {policy}` throws keys away: raise maxmemory, or set the policy \
                 noeviction, and restore again"
            ),
        ))
    }

    /// Waits until the server has loaded everything. It answers while it loads.
    async fn loaded(&self) -> Result<()> {
        // Dropping a large database may keep it busy; the other connection says whether it is there.
        let patience = Duration::from(self.timeout) * 10;
        let mut connection = Connection::open(&self.server, patience).await?;
        loop {
            let info = preflight::info(&mut connection).await?;
            if info.is("master_link_status", "up") {
                return Ok(());
            }
            if !info.is("role", "slave") {
                return Err(Error::new(
                    ErrorKind::Other,
                    format!("{self} is no replica any more: somebody else changed it"),
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the server has what was sent.
    async fn compare(&self, (sent, digest): (Summary, Digest), check: Check) -> Result<()> {
        let Some(content) = &sent.content else {
            tracing::warn!(server = %self, "the backup is of a newer format than this program knows: nothing is compared");
            return Ok(());
        };
        let patience = Duration::from(self.timeout);
        let mut connection = Connection::open(&self.server, patience).await?;
        let keys = preflight::info(&mut connection).await?.keys();
        if keys != content.keys {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{self} has keys {keys:?} by database, and {:?} were backed up",
                    content.keys
                ),
            ));
        }
        let (Check::Digest, Some(expected)) = (check, digest.value()) else {
            return Ok(());
        };
        let capture = Capture::begin(&self.server, patience).await?;
        let (bytes, tell) = walked(capture.bytes(), Walker::with(Digest::default()), true);
        drain(bytes).await?;
        let (summary, digest) = told(tell)?;
        match digest.value() {
            // What it reads in an older format it may write down with more, or less.
            _ if summary.version != sent.version => Ok(()),
            Some(found) if found != expected => Err(Error::new(
                ErrorKind::Corrupt,
                format!("{self} has as many keys as were backed up, and not the same values"),
            )),
            _ => Ok(()),
        }
    }
}

impl Restoring {
    /// What the caller asks for beyond what the target says.
    pub(crate) fn with(&self, options: &RestoreOptions) -> Result<Self> {
        let mut how = self.clone();
        for (name, value) in &options.extra {
            match name.as_str() {
                "part" => how.part = Some(RestoreOptions::read(name, value)?),
                "check" => how.check = RestoreOptions::read(name, value)?,
                _ => return Err(RestoreOptions::unknown(KIND, name)),
            }
        }
        Ok(how)
    }
}

fn held(info: &Info) -> Occupancy {
    let keys = info.keys();
    let all: u64 = keys.values().sum();
    let libraries = info.get("number_of_libraries");
    let mut held = Vec::new();
    match (all, keys.len()) {
        (0, _) => {}
        (1, _) => held.push("1 key".to_owned()),
        (all, 1) => held.push(format!("{all} keys")),
        (all, databases) => held.push(format!("{all} keys in {databases} databases")),
    }
    if !["", "0"].contains(&libraries) {
        held.push(format!("{libraries} libraries of functions"));
    }
    match held.is_empty() {
        true => Occupancy::Empty,
        false => Occupancy::Holds(held.join(" and ")),
    }
}

/// What the server holds, in words.
pub(crate) fn described(info: &Info) -> String {
    match held(info) {
        Occupancy::Empty => "nothing".to_owned(),
        Occupancy::Holds(what) => what,
    }
}

async fn drain(mut bytes: backup_core::ByteStream) -> Result<()> {
    use futures::StreamExt;
    while let Some(chunk) = bytes.next().await {
        chunk?;
    }
    Ok(())
}
