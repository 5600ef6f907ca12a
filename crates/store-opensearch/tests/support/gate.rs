//! A door before a real server that answers some requests itself, as a table says.
//!
//! The servers of `scripts/services` have no security plugin and are never busy. What it, and a busy
//! server, answer is in `replies/`, each file with its source in the table.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a door answers, of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: &'static str,
}

/// 401 of the security plugin: plain text (`HTTPBasicAuthenticator`, `BackendRegistry`).
pub(crate) const UNAUTHORIZED: Reply = Reply {
    status: 401,
    body: "Unauthorized",
};
/// 403 of the security plugin, of a user without the right (`SecurityFilter`; its documentation,
/// "Access control", has the same text).
pub(crate) const FORBIDDEN: Reply = Reply {
    status: 403,
    body: include_str!("../replies/forbidden.json"),
};
/// 429 of a node whose write queue is full (`OpenSearchRejectedExecutionException`).
pub(crate) const BUSY: Reply = Reply {
    status: 429,
    body: include_str!("../replies/busy.json"),
};
/// An answer to `_bulk` of which each item was refused for now (its documentation, "Bulk").
pub(crate) const BUSY_ITEMS: Reply = Reply {
    status: 200,
    body: include_str!("../replies/busy-items.json"),
};
/// 503 of a cluster that has no manager just now (`ClusterBlockException`, "no cluster-manager").
pub(crate) const NO_MANAGER: Reply = Reply {
    status: 503,
    body: include_str!("../replies/no-manager.json"),
};
/// A search of which a shard failed.
pub(crate) const SHARD_FAILED: Reply = Reply {
    status: 200,
    body: include_str!("../replies/shard-failed.json"),
};

/// Which requests are answered here: those that begin so, from the `from`th on, `times` of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    request: &'static str,
    from: u32,
    times: u32,
    reply: Reply,
}

impl Rule {
    /// All that begin so.
    pub(crate) fn all(request: &'static str, reply: Reply) -> Self {
        Self {
            request,
            from: 0,
            times: u32::MAX,
            reply,
        }
    }

    /// `times` of them, but for the first `from`.
    pub(crate) fn some(request: &'static str, from: u32, times: u32, reply: Reply) -> Self {
        Self {
            request,
            from,
            times,
            reply,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) url: String,
    fired: Arc<AtomicU32>,
    seen: Arc<AtomicU32>,
}

impl Gate {
    /// Before the server on the port `to`.
    pub(crate) fn to(to: u16, rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (fired, seen) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let gate = Self {
            url,
            fired: Arc::clone(&fired),
            seen: Arc::clone(&seen),
        };
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let (fired, seen) = (Arc::clone(&fired), Arc::clone(&seen));
                std::thread::spawn(move || serve(client, to, rule, &fired, &seen));
            }
        });
        gate
    }

    /// How many requests it answered itself.
    pub(crate) fn fired(&self) -> u32 {
        self.fired.load(Ordering::SeqCst)
    }
}

/// One request for each connection.
fn serve(
    client: TcpStream,
    to: u16,
    rule: Rule,
    fired: &AtomicU32,
    seen: &AtomicU32,
) -> Option<()> {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).ok()?;
    let mut client = client.into_inner();
    if head.starts_with(rule.request) {
        let nth = seen.fetch_add(1, Ordering::SeqCst);
        if nth >= rule.from && nth - rule.from < rule.times {
            fired.fetch_add(1, Ordering::SeqCst);
            let Reply { status, body } = rule.reply;
            return write!(
                client,
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .ok();
        }
    }
    let mut server = TcpStream::connect(("127.0.0.1", to)).ok()?;
    write!(server, "{head}connection: close\r\n\r\n").ok()?;
    server.write_all(&body).ok()?;
    // Whoever asked must not ask again on this connection.
    let mut server = BufReader::new(server);
    let mut status = String::new();
    server.read_line(&mut status).ok()?;
    write!(client, "{status}connection: close\r\n").ok()?;
    std::io::copy(&mut server, &mut client).ok()?;
    Some(())
}
