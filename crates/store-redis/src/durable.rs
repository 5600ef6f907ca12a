//! What the server persists, after a restore.

use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Result};

use crate::connection::Connection;
use crate::preflight;

/// Waits until the restored data is on the server's disk, as far as it persists any: with
/// `appendonly yes` the file that it begins after a resynchronisation, else, with `save` points, a
/// save.
pub(crate) async fn durable(control: &mut Connection) -> Result<()> {
    let append_only = preflight::info(control).await?.is("aof_enabled", "1");
    let (file, what) = match append_only {
        true => ("aof", "append-only file"),
        false => {
            match preflight::setting(control, "save").await? {
                Some(points) if !points.is_empty() => {}
                _ => return Ok(()),
            }
            save(control).await?;
            ("rdb", "dump.rdb")
        }
    };
    let mut failed = 0;
    while failed < FAILURES {
        let info = preflight::info(control).await?;
        let is = |field, value| info.is(field, value);
        let (busy, scheduled, well) = match file {
            "aof" => (
                is("aof_rewrite_in_progress", "1"),
                is("aof_rewrite_scheduled", "1"),
                is("aof_last_bgrewrite_status", "ok"),
            ),
            _ => (
                is("rdb_bgsave_in_progress", "1"),
                false,
                is("rdb_last_bgsave_status", "ok"),
            ),
        };
        match (busy, well) {
            (false, true) if !scheduled => return Ok(()),
            // It may be an old one, of which the server says more when the next has ended.
            (false, false) => failed += 1,
            _ => {}
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Error::new(
        ErrorKind::Other,
        format!(
            "{} has the data in memory, and cannot write its {what}: see its log and its disk",
            control.name
        ),
    ))
}

/// Begins a save. What the server calls one in progress may be a snapshot for a replica, which it
/// keeps nowhere: so it is asked until it begins ours.
async fn save(control: &mut Connection) -> Result<()> {
    let deadline = Instant::now() + BUSY;
    let busy = ["already in progress", "Another child process is active"];
    loop {
        match control.ask(&["BGSAVE"]).await {
            Ok(_) => return Ok(()),
            Err(error) if busy.iter().any(|why| error.to_string().contains(why)) => {
                if Instant::now() > deadline {
                    return Err(error.context(format!(
                        "{} has the data in memory, and did not begin to save it for {BUSY:?}",
                        control.name
                    )));
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How often a server is asked how far it is.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// How long another child of the server may keep it from saving.
const BUSY: Duration = Duration::from_secs(3600);

/// How often a failure is seen before it is one: two seconds. A server tries again for ever, and
/// says each time that more is to come.
const FAILURES: u32 = 40;
