//! A Redis server by its instructions: the file that `redis-server` starts from.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::testing::service;
use lifebelt_tests::{Keys, job};

use super::Found;

/// A server in a folder, which ends with the test.
struct Server {
    child: Child,
    cli: PathBuf,
    port: String,
}

impl Server {
    fn start(program: &PathBuf, cli: PathBuf, folder: &std::path::Path, more: &[&str]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        drop(listener);
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &port, "--dir"])
            .arg(folder);
        command
            .args(["--save", "", "--repl-diskless-sync-delay", "0"])
            .args(more);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, cli, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !server.ask(&["PING"]).contains("PONG") {
            assert!(Instant::now() < deadline, "{program:?} does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    fn ask(&self, command: &[&str]) -> String {
        let mut cli = Command::new(&self.cli);
        let said = cli.args(["-p", &self.port]).args(command).output().unwrap();
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    fn digest(&self) -> String {
        [
            self.ask(&["DEBUG", "DIGEST"]),
            self.ask(&["FUNCTION", "LIST"]),
        ]
        .join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_server_starts_from_what_its_instructions_write() {
    let servers = [
        ("LIFEBELT_REDIS_BIN", "redis-server"),
        ("LIFEBELT_REDIS8_BIN", "redis-server"),
        ("LIFEBELT_VALKEY_BIN", "valkey-server"),
    ];
    for (variable, name) in servers {
        let folder = |variable: &str| service(variable).map(PathBuf::from);
        let (Some(bin), Some(tools)) = (folder(variable), folder("LIFEBELT_REDIS_BIN")) else {
            continue;
        };
        let (program, cli) = (bin.join(name), || tools.join("redis-cli"));
        let debug = ["--enable-debug-command", "yes"];
        let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
        let own = tempfile::tempdir().unwrap();
        let server = Server::start(&program, cli(), own.path(), &debug);
        server.ask(&[
            "EVAL",
            "for i = 1, 5000 do redis.call('hset', 'h:' .. i, 'f', i, 'g', 'x') end",
            "0",
        ]);
        server.ask(&["SET", "text", "with \"quotes\""]);
        server.ask(&["-n", "7", "ZADD", "scores", "1.5", "a"]);
        server.ask(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=l\nredis.register_function('f', function() return 1 end)",
        ]);
        let before = server.digest();
        let source =
            store_redis::Redis::from_url(format!("redis://127.0.0.1:{}", server.port)).unwrap();
        let job = job("cache", &keys, work.path()).source(source);
        let found = Found::of(job, &keys, work.path()).await;
        found.restores();
        let target = found.at("target");
        let files: Vec<_> = fs::read_dir(&target).unwrap().collect();
        assert_eq!(files.len(), 1);
        // Over one that is there it does not write.
        assert!(found.restored().is_err());

        let off = [&debug[..], &["--appendonly", "no"]].concat();
        let restored = Server::start(&program, cli(), &target, &off);
        assert_eq!(restored.digest(), before, "{name} starts from it");
        // As the instructions say, for who wants it.
        assert_eq!(restored.ask(&["CONFIG", "SET", "appendonly", "yes"]), "OK");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !restored
            .ask(&["INFO", "persistence"])
            .contains("aof_rewrite_in_progress:0")
        {
            assert!(Instant::now() < deadline);
        }
        drop(restored);
        let on = [&debug[..], &["--appendonly", "yes"]].concat();
        let again = Server::start(&program, cli(), &target, &on);
        assert_eq!(again.digest(), before, "and with an append-only file");
    }
}
