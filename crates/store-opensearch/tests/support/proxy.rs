//! What lies between two sides and can go wrong.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// What happens after so many bytes of answers, of all connections together.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// One connection is closed, once; others go on.
    Cut(u64),
    /// Nothing comes any more, on no connection.
    Stall(u64),
    /// All connections are closed, and so is each new one.
    Die(u64),
}

/// Passes bytes on until its fault fires.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fault: Fault,
    passed: Arc<AtomicU64>,
    fired: Arc<AtomicU64>,
    mended: Arc<AtomicBool>,
}

impl Proxy {
    /// Between whoever connects and the server at `to`.
    pub(crate) fn to(to: u16, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            fault,
            passed: Arc::default(),
            fired: Arc::default(),
            mended: Arc::default(),
        };
        let this = proxy.clone();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let dead = matches!(fault, Fault::Die(_)) && this.fired() > 0 && !this.is_mended();
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                if dead {
                    continue;
                }
                let (a, b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(a, b));
                let this = this.clone();
                thread::spawn(move || this.answers(server, client));
            }
        });
        proxy
    }

    /// How often its fault fired.
    pub(crate) fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    /// How many bytes of answers came.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    fn is_mended(&self) -> bool {
        self.mended.load(Ordering::SeqCst)
    }

    /// Passes everything on from now on.
    pub(crate) fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn answers(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let Ok(n @ 1..) = from.read(&mut buffer) else {
                let _ = to.shutdown(Shutdown::Write);
                return;
            };
            let before = self.passed.fetch_add(n as u64, Ordering::SeqCst);
            let passed = before + n as u64;
            let due = match self.fault {
                // Of two connections at once, one gets past it.
                Fault::Cut(limit) => (before..passed).contains(&limit),
                Fault::Stall(limit) | Fault::Die(limit) => passed > limit,
            };
            if due && !self.is_mended() {
                self.fired.fetch_add(1, Ordering::SeqCst);
                if let Fault::Stall(_) = self.fault {
                    // Whoever waits gives up at last, whatever they say until then.
                    while matches!(to.read(&mut [0]), Ok(1..)) {}
                }
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            if to.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
