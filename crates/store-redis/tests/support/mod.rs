//! The servers that the tests start: each its own, because a restore replaces all that is in one.

#![allow(dead_code, reason = "each test file uses its share")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::testing::service;
use store_redis::{Redis, RedisServer};

pub(crate) mod proxy;

/// All types of values, as text for `redis-cli`.
const SEED: &str = include_str!("seed.redis");
/// Fields of hashes that expire: not before Redis 7.4 and Valkey 9.
const SEED_FIELDS: &str = include_str!("seed-fields.redis");

pub(crate) const PASSWORD: &str = "p@ss:w/rd canary";

/// The servers that everything is tested with.
pub(crate) const KINDS: [Kind; 3] = [Kind::Redis, Kind::Redis8, Kind::Valkey];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 7.0
    Redis,
    /// 8.2
    Redis8,
    /// Valkey 9.1
    Valkey,
}

impl Kind {
    /// The programs, if they are there.
    pub(crate) fn at_hand(self) -> Option<Programs> {
        let variable = match self {
            Self::Redis => "LIFEBELT_REDIS_BIN",
            Self::Redis8 => "LIFEBELT_REDIS8_BIN",
            Self::Valkey => "LIFEBELT_VALKEY_BIN",
        };
        let (Some(bin), Some(tools)) = (folder(variable), folder("LIFEBELT_REDIS_BIN")) else {
            return None;
        };
        let server = match self {
            Self::Valkey => "valkey-server",
            _ => "redis-server",
        };
        Some(Programs {
            kind: self,
            server: bin.join(server),
            cli: tools.join("redis-cli"),
        })
    }

    pub(crate) fn all() -> impl Iterator<Item = Programs> {
        KINDS.into_iter().filter_map(Self::at_hand)
    }
}

fn folder(variable: &str) -> Option<PathBuf> {
    service(variable).map(Into::into)
}

#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) kind: Kind,
    pub(crate) server: PathBuf,
    pub(crate) cli: PathBuf,
}

/// A server that ends with the test.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) programs: Programs,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    settings: Vec<String>,
    child: Option<Child>,
    /// What comes ahead of the server: a limit on its files.
    shell: &'static str,
}

impl Programs {
    /// A server with these settings beside those of all tests.
    pub(crate) fn start(&self, settings: &[&str]) -> Server {
        self.start_behind("", settings)
    }

    /// A server behind a few words of shell.
    pub(crate) fn start_behind(&self, shell: &'static str, settings: &[&str]) -> Server {
        let mut server = Server {
            programs: self.clone(),
            folder: tempfile::tempdir().unwrap(),
            port: 0,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            child: None,
            shell,
        };
        server.run();
        server
    }

    /// Two servers of the same kind: one that is seeded, and an empty one.
    pub(crate) fn pair(&self) -> (Server, Server) {
        let (from, to) = (self.start(&[]), self.start(&[]));
        from.seed();
        (from, to)
    }
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
        panic!("{:?} does not start: {}", self.programs.server, self.log());
    }

    fn try_run(&mut self) -> bool {
        let folder = self.folder.path();
        let mut settings = vec![
            format!("port {}", self.port),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", folder.display()),
            format!("logfile {}", folder.join("log").display()),
            format!("requirepass \"{PASSWORD}\""),
            "save \"\"".to_owned(),
            "enable-debug-command yes".to_owned(),
            "repl-diskless-sync-delay 0".to_owned(),
            "repl-timeout 10".to_owned(),
        ];
        settings.extend(self.settings.iter().cloned());
        let file = folder.join("server.conf");
        fs::write(&file, settings.join("\n")).unwrap();
        let start = format!("{} exec \"$@\"", self.shell);
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", &start, "sh"])
            .arg(&self.programs.server)
            .arg(&file);
        if self
            .settings
            .iter()
            .any(|setting| setting.starts_with("sentinel"))
        {
            command.arg("--sentinel");
        }
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = quiet.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if self
                .try_ask(&["PING"])
                .is_ok_and(|pong| pong.contains("PONG"))
            {
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

    /// Ends it as a service manager does.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    /// Saves, and tells how long the file is.
    pub(crate) fn saved(&self) -> u64 {
        // A fork of an earlier snapshot may not have ended yet.
        while self.try_ask(&["SAVE"]).unwrap().contains("in progress") {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.dump().metadata().unwrap().len()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn source(&self) -> Redis {
        Redis::from_url(self.url()).unwrap().password(PASSWORD)
    }

    pub(crate) fn target(&self) -> RedisServer {
        RedisServer::from_url(self.url())
            .unwrap()
            .password(PASSWORD)
    }

    /// The answer to one command, on a connection of its own.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        let answer = self
            .try_ask(command)
            .unwrap_or_else(|e| panic!("{command:?}: {e}\n{}", self.log()));
        assert!(!answer.starts_with('-'), "{command:?}: {answer}");
        answer
    }

    pub(crate) fn try_ask(&self, command: &[&str]) -> std::io::Result<String> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut stream = BufReader::new(stream);
        send(&mut stream, &["AUTH", PASSWORD])?;
        let first = answer(&mut stream)?;
        if !first.starts_with("+OK") && !first.contains("without any password") {
            return Ok(first);
        }
        send(&mut stream, command)?;
        answer(&mut stream)
    }

    /// Feeds commands to `redis-cli`; all must be understood.
    pub(crate) fn feed(&self, commands: &str) {
        let mut child = Command::new(&self.programs.cli)
            .args(["-p", &self.port.to_string()])
            .env("REDISCLI_AUTH", PASSWORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(commands.as_bytes())
            .unwrap();
        let said = child.wait_with_output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains("ERR") && !said.contains("NOAUTH"), "{said}");
    }

    /// Every type of value, and four megabytes more.
    pub(crate) fn seed(&self) {
        self.feed(SEED);
        if self.programs.kind != Kind::Redis {
            self.feed(SEED_FIELDS);
        }
        self.fill(4000);
    }

    /// So many keys of a kilobyte that compresses badly.
    pub(crate) fn fill(&self, keys: u32) {
        const FILL: &str = "for i = 1, ARGV[1] do local t = {} for j = 1, 25 do \
            t[j] = redis.sha1hex(i .. ':' .. j) end redis.call('set', 'bulk:' .. i, table.concat(t)) end";
        self.ask(&["EVAL", FILL, "0", &keys.to_string()]);
    }

    /// Everything in it, as the server itself tells it apart.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = self.ask(&["DEBUG", "DIGEST"]);
        let keyspace = self.ask(&["INFO", "keyspace"]);
        let keyspace: Vec<_> = keyspace
            .lines()
            .filter(|line| line.starts_with("db"))
            .collect();
        let keyspace: Vec<_> = keyspace
            .iter()
            .map(|line| line.split(",avg").next().unwrap())
            .collect();
        let functions = self.ask(&["FUNCTION", "LIST", "WITHCODE"]);
        let mut functions: Vec<_> = functions.lines().collect();
        functions.sort_unstable();
        let mut told = vec![digest, keyspace.join("\n"), functions.join("\n")];
        for key in ["stream", "stream:empty"] {
            told.push(self.try_ask(&["XINFO", "STREAM", key, "FULL"]).unwrap());
        }
        for key in ["expires:far", "expires:hash"] {
            told.push(self.ask(&["PEXPIRETIME", key]));
        }
        if self.programs.kind != Kind::Redis {
            let fields = [
                "HPEXPIRETIME",
                "fields:large",
                "FIELDS",
                "3",
                "field 7",
                "field 8",
                "field 9",
            ];
            told.push(self.ask(&fields));
        }
        told.join("\n")
    }

    pub(crate) fn info(&self, field: &str) -> String {
        let info = self.ask(&["INFO"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.unwrap_or_default().to_owned()
    }

    pub(crate) fn keys(&self) -> u64 {
        let keyspace = self.ask(&["INFO", "keyspace"]);
        let keys = keyspace.lines().filter_map(|line| line.split_once("keys="));
        keys.map(|(_, rest)| rest.split(',').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    pub(crate) fn wipe(&self) {
        self.ask(&["FLUSHALL"]);
        self.ask(&["FUNCTION", "FLUSH"]);
    }

    /// What a backup or restore left: connections, a fork, a role.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = Vec::new();
        for (field, quiet) in [("role", "master"), ("rdb_bgsave_in_progress", "0")] {
            let now = self.info(field);
            if now != quiet {
                left.push(format!("{field}:{now}"));
            }
        }
        let clients = self.ask(&["CLIENT", "LIST"]);
        let others = clients
            .lines()
            .filter(|line| line.contains("id=") && !line.contains("cmd=client"));
        left.extend(others.map(str::to_owned));
        left
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

fn send(stream: &mut BufReader<TcpStream>, command: &[&str]) -> std::io::Result<()> {
    let mut bytes = format!("*{}\r\n", command.len());
    for word in command {
        bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.get_mut().write_all(bytes.as_bytes())
}

/// An answer as text: what it is, then what is in it.
fn answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let (kind, rest) = line.trim_end().split_at(1);
    let count: i64 = rest.parse().unwrap_or(0);
    match kind {
        "$" if count >= 0 => {
            let mut bytes = vec![0; usize::try_from(count).unwrap() + 2];
            stream.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" => {
            let parts: std::io::Result<Vec<String>> = (0..count).map(|_| answer(stream)).collect();
            Ok(parts?.join("\n"))
        }
        _ => Ok(line.trim_end().to_owned()),
    }
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program:?} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
