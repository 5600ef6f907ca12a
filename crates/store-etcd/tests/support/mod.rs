//! The servers that the tests start: each its own, because a restore makes a new one.

#![allow(dead_code, reason = "each test file uses its share")]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::testing::service;
use serde_json::Value;
use store_etcd::{Etcd, EtcdDataDir};

#[path = "../../../store-redis/tests/support/proxy.rs"]
pub(crate) mod proxy;

pub(crate) const PASSWORD: &str = "p@ss:w/rd canary";

/// The series that everything is tested with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 3.6
    Etcd,
    /// 3.4
    Etcd34,
}

#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) kind: Kind,
    bin: PathBuf,
}

impl Kind {
    /// The programs, if they are there.
    pub(crate) fn at_hand(self) -> Option<Programs> {
        let variable = match self {
            Self::Etcd => "LIFEBELT_ETCD_BIN",
            Self::Etcd34 => "LIFEBELT_ETCD34_BIN",
        };
        service(variable).map(|bin| Programs {
            kind: self,
            bin: bin.into(),
        })
    }

    pub(crate) fn all() -> impl Iterator<Item = Programs> {
        [Self::Etcd, Self::Etcd34]
            .into_iter()
            .filter_map(Self::at_hand)
    }
}

impl Programs {
    /// An empty server with these options beside those of all tests.
    pub(crate) fn start(&self, options: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        self.start_on(folder, data, options)
    }

    /// A server on a copy of a data directory.
    pub(crate) fn start_on_copy(&self, of: &Path) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let copied = Command::new("cp").arg("-a").args([of, &*data]).status();
        assert!(copied.unwrap().success());
        self.start_on(folder, data, &[])
    }

    fn start_on(&self, folder: tempfile::TempDir, data: PathBuf, options: &[&str]) -> Server {
        let mut server = Server {
            programs: self.clone(),
            folder,
            data,
            port: 0,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            child: None,
        };
        server.run();
        server
    }

    pub(crate) fn target(&self, path: &Path) -> EtcdDataDir {
        let target = EtcdDataDir::new(path);
        match self.kind {
            Kind::Etcd => target.etcdutl(self.bin.join("etcdutl")),
            Kind::Etcd34 => target.etcdutl(self.bin.join("etcdctl")).bump_revision(0),
        }
    }

    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// A server that ends with the test.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) programs: Programs,
    folder: tempfile::TempDir,
    pub(crate) data: PathBuf,
    pub(crate) port: u16,
    options: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts it, again if it ran before, on the same port if that is free.
    pub(crate) fn run(&mut self) {
        for _ in 0..20 {
            if self.port == 0 {
                self.port = free_port();
            }
            if self.try_run() {
                return;
            }
            self.port = 0;
        }
        panic!("etcd does not start: {}", self.log());
    }

    fn try_run(&mut self) -> bool {
        let scheme = match self.options.iter().any(|option| option.contains("cert")) {
            true => "https",
            false => "http",
        };
        let (client, peer) = (
            format!("{scheme}://127.0.0.1:{}", self.port),
            format!("http://127.0.0.1:{}", free_port()),
        );
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(self.programs.tool("etcd"));
        command
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            // It is alone, and elects itself sooner.
            .args(["--heartbeat-interval=10", "--election-timeout=50"])
            .args(matches!(self.programs.kind, Kind::Etcd).then_some("--unsafe-no-fsync"))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            let log = self.log();
            let is_ready = [
                "ready to serve client requests",
                "serving client traffic",
                "serving insecure client requests",
            ];
            if is_ready.iter().any(|words| log.contains(words)) {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn source(&self) -> Etcd {
        Etcd::from_url(self.endpoint()).unwrap()
    }

    pub(crate) fn ctl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(self.programs.tool("etcdctl"))
            .args(["--endpoints", &self.endpoint()])
            .args(arguments)
            .env("ETCDCTL_API", "3")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        self.ctl(arguments, "")
            .unwrap_or_else(|e| panic!("{arguments:?}: {e}"))
    }

    /// Everything that etcd keeps: history, deletions, leases, a name with spaces, binary and empty
    /// values, and some megabytes.
    pub(crate) fn seed(&self) {
        for value in ["one", "two", "three"] {
            self.ask(&["put", "history", value]);
        }
        self.ask(&["put", "gone", "x"]);
        self.ask(&["del", "gone"]);
        self.ask(&["put", "empty", ""]);
        self.ctl(
            &["put", "/a key/with ümläuts "],
            "\u{1}\u{7f}\n\u{2}binary\u{0}",
        )
        .unwrap();
        let lease = self.ask(&["lease", "grant", "36000"]);
        let lease = lease.split_whitespace().nth(1).unwrap();
        self.ask(&["put", "leased", "x", "--lease", lease]);
        self.fill(4);
    }

    /// So many megabytes, in values that take several pages, and some small ones.
    pub(crate) fn fill(&self, megabytes: usize) {
        for n in 0..megabytes {
            let value: String = (0..125_000_u64)
                .map(|i| {
                    format!(
                        "{:08x}",
                        (i + n as u64 * 1_000_003).wrapping_mul(2_654_435_761) as u32
                    )
                })
                .collect();
            self.ctl(&["put", &format!("bulk/{n}")], &value).unwrap();
            let puts: String = (0..100)
                .map(|i| format!("put small/{n}/{i} {i}\n"))
                .collect();
            self.ctl(&["txn"], &format!("\n{puts}\n\n")).unwrap();
        }
    }

    /// All keys with their revisions, and what came before.
    pub(crate) fn fingerprint(&self) -> String {
        let all: Value =
            serde_json::from_str(&self.ask(&["get", "", "--prefix", "-w", "json"])).unwrap();
        let leases = self.ask(&["lease", "list"]);
        format!("{}\n{leases}", all["kvs"])
    }

    /// All keys and values, and which of them have a lease.
    pub(crate) fn contents(&self) -> String {
        let all: Value =
            serde_json::from_str(&self.ask(&["get", "", "--prefix", "-w", "json"])).unwrap();
        let rows = all["kvs"].as_array().cloned().unwrap_or_default();
        let rows = rows.iter().map(|row| {
            let leased = row["lease"].as_i64().is_some_and(|lease| lease != 0);
            format!("{} {} {leased}\n", row["key"], row["value"])
        });
        rows.collect()
    }

    pub(crate) fn revision(&self) -> i64 {
        let said: Value = serde_json::from_str(&self.ask(&["get", "x", "-w", "json"])).unwrap();
        said["header"]["revision"].as_i64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
