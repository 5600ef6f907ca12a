//! A server that a test has for itself, to stop it or to set it up in a way of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::Server;

const PASSWORD: &str = "cluster-canary";

/// A new cluster of databases; it ends with the test.
pub(crate) struct Cluster {
    pub(crate) server: Server,
    folder: TempDir,
    settings: Vec<String>,
}

impl Cluster {
    /// Of the major version of `like`, with `settings` as `postgres -c` takes them. What `prepare`
    /// puts into the data folder belongs to the server.
    pub(crate) fn start(like: &Server, settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        // Where others get to, whoever runs the tests.
        let folder = tempfile::Builder::new()
            .prefix("lifebelt-cluster-")
            .tempdir_in("/tmp")
            .unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = port.local_addr().unwrap().to_string();
        drop(port);
        let login = format!("postgres:{PASSWORD}");
        let cluster = Self {
            server: Server::at(like.major, login, place, &like.bin),
            folder,
            settings: settings.iter().map(ToString::to_string).collect(),
        };
        let password = cluster.folder.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        cluster.give();
        let password = format!("--pwfile={}", password.display());
        let data = cluster.data().display().to_string();
        cluster.run(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "postgres",
                "-A",
                "scram-sha-256",
                &password,
                "-N",
            ],
        );
        prepare(&cluster.data());
        cluster.give();
        cluster.start_again();
        cluster
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn start_again(&self) {
        let (_, port) = self.server.place.split_once(':').unwrap();
        let mut options = format!(
            "-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off -c dynamic_shared_memory_type=mmap"
        );
        for setting in &self.settings {
            options.push_str(&format!(" -c {setting}"));
        }
        let data = self.data().display().to_string();
        let log = self.folder.path().join("data/log").display().to_string();
        self.run(
            "pg_ctl",
            &["start", "-D", &data, "-w", "-s", "-l", &log, "-o", &options],
        );
    }

    /// What `pg_ctl` is to be told, for scripts: every process ends at once, as in a crash.
    pub(crate) fn stop_command(&self) -> Vec<String> {
        let data = self.data().display().to_string();
        let program = self.server.bin.join("pg_ctl").display().to_string();
        let mut words = as_postgres();
        words.extend([program, "stop".into(), "-D".into(), data]);
        words.extend(["-m", "immediate", "-w", "-s"].map(str::to_owned));
        words
    }

    /// To the user that the server runs as.
    fn give(&self) {
        if !as_postgres().is_empty() {
            let given = Command::new("chown")
                .args(["-R", "postgres:"])
                .arg(self.folder.path())
                .status();
            assert!(given.unwrap().success());
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.server.bin.join(program).display().to_string();
        let words: Vec<String> = as_postgres().into_iter().chain([program]).collect();
        let output: Output = Command::new(&words[0])
            .args(&words[1..])
            .args(arguments)
            .current_dir("/")
            .stdout(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
    }
}

/// PostgreSQL refuses to run as root.
fn as_postgres() -> Vec<String> {
    let user = Command::new("id").arg("-u").output().unwrap().stdout;
    match user.as_slice() {
        b"0\n" => ["runuser", "-u", "postgres", "--"]
            .map(str::to_owned)
            .into(),
        _ => Vec::new(),
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let words = self.stop_command();
        // It may have been stopped already.
        let _ = Command::new(&words[0]).args(&words[1..]).output();
    }
}
