//! An etcd by its instructions: the snapshot, and what `etcdutl` makes of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backup_core::testing::service;
use lifebelt_tests::{Keys, job};

use super::Found;

/// A server on a data directory, which ends with the test.
struct Server {
    child: Child,
    bin: PathBuf,
    endpoint: String,
}

impl Server {
    fn start(bin: &Path, data: &Path) -> Self {
        let port = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let endpoint = format!("http://127.0.0.1:{}", port());
        let peer = format!("http://127.0.0.1:{}", port());
        let mut command = Command::new(bin.join("etcd"));
        command.arg("--data-dir").arg(data);
        for option in ["--listen-client-urls", "--advertise-client-urls"] {
            command.args([option, &endpoint]);
        }
        for option in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
            command.args([option, &peer]);
        }
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = quiet.spawn().unwrap();
        let bin = bin.to_owned();
        let server = Self {
            child,
            bin,
            endpoint,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.try_ask(&["endpoint", "health"]).is_none() {
            assert!(Instant::now() < deadline, "etcd does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn try_ask(&self, arguments: &[&str]) -> Option<String> {
        let mut ctl = Command::new(self.bin.join("etcdctl"));
        ctl.env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint])
            .args(arguments);
        let said = ctl.output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        said.status.success().then_some(text)
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let said = self.try_ask(arguments);
        said.unwrap_or_else(|| panic!("{arguments:?} failed"))
    }

    /// All keys with their revisions.
    fn keys(&self) -> String {
        let said = self.ask(&["get", "", "--prefix", "-w", "json"]);
        let (_, keys) = said.split_once("\"kvs\":").unwrap();
        keys.to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_server_starts_from_what_etcdutl_makes_by_the_instructions() {
    const RAISED: &str = " --bump-revision 1000000000 --mark-compacted";
    for (variable, tool, raised) in [
        ("LIFEBELT_ETCD_BIN", "etcdutl", RAISED),
        ("LIFEBELT_ETCD34_BIN", "etcdctl", ""),
    ] {
        let Some(bin) = service(variable).map(PathBuf::from) else {
            continue;
        };
        let (keys, work) = (Keys::new(), tempfile::tempdir().unwrap());
        let own = tempfile::tempdir().unwrap();
        let server = Server::start(&bin, own.path());
        for n in 0..20 {
            server.ask(&["put", &format!("key {}", n % 7), &n.to_string()]);
        }
        server.ask(&["del", "key 3"]);
        let before = server.keys();
        let source = store_etcd::Etcd::from_url(&*server.endpoint).unwrap();
        let job = job("cluster", &keys, work.path()).source(source);
        let found = Found::of(job, &keys, work.path()).await;
        found.restores();
        // Over one that is there it does not write.
        assert!(found.restored().is_err());

        let line = format!(
            "etcdutl snapshot restore \"$TARGET/snapshot.db\" --data-dir \"$TARGET/data\"{RAISED}"
        );
        assert!(
            found.instructions().contains(&line),
            "{}",
            found.instructions()
        );
        let line = line.replace(RAISED, raised);
        let line = line.replacen("etcdutl", &bin.join(tool).display().to_string(), 1);
        let target = found.at("target");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &line])
            .env("TARGET", &target)
            .env("ETCDCTL_API", "3");
        let made = shell.output().unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let restored = Server::start(&bin, &target.join("data"));
        assert_eq!(restored.keys(), before, "{variable}");
    }
}
