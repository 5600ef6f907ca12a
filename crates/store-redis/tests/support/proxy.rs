//! What lies between two sides and can go wrong.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// What happens to the answers of one connection after so many bytes of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Both sides see it closed.
    Cut(u64),
    /// Nothing comes any more.
    Stall(u64),
}

/// Passes bytes on until its fault fires; once for each connection that gets that far.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    fired: Arc<AtomicU64>,
    on: Arc<AtomicBool>,
}

impl Proxy {
    /// Between whoever connects and the server at `to`.
    pub(crate) fn to(to: u16, fault: Fault) -> Self {
        Self::between(TcpListener::bind("127.0.0.1:0").unwrap(), to, fault)
    }

    fn between(listener: TcpListener, to: u16, fault: Fault) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (fired, on) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let (counter, working) = (Arc::clone(&fired), Arc::clone(&on));
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                let (a, b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(a, b));
                let (counter, working) = (Arc::clone(&counter), Arc::clone(&working));
                thread::spawn(move || answers(server, client, fault, &counter, &working));
            }
        });
        Self { port, fired, on }
    }

    /// How often its fault fired.
    pub(crate) fn fired(&self) -> u64 {
        self.fired.load(Ordering::SeqCst)
    }

    /// Passes everything on from now on.
    pub(crate) fn mend(&self) {
        self.on.store(false, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn answers(
    mut from: TcpStream,
    mut to: TcpStream,
    fault: Fault,
    fired: &AtomicU64,
    on: &AtomicBool,
) {
    let (Fault::Cut(limit) | Fault::Stall(limit)) = fault;
    let mut buffer = vec![0; 16 << 10];
    let mut left = limit;
    loop {
        let most = match on.load(Ordering::SeqCst) {
            true => usize::try_from(left.clamp(1, 16 << 10)).unwrap(),
            false => buffer.len(),
        };
        let Ok(n @ 1..) = from.read(&mut buffer[..most]) else {
            let _ = to.shutdown(Shutdown::Write);
            return;
        };
        if on.load(Ordering::SeqCst) && left < n as u64 {
            fired.fetch_add(1, Ordering::SeqCst);
            if let Fault::Stall(_) = fault {
                // Whoever waits gives up at last, whatever they say until then.
                while matches!(to.read(&mut [0]), Ok(1..)) {}
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
        if on.load(Ordering::SeqCst) {
            left -= n as u64;
        }
        if to.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
