//! The servers of `scripts/services` that the program uses.
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::testing::service;

use crate::common::{Place, Said};

/// Servers of `scripts/services`, and a place with a job `orders` that uses them.
pub struct Vertical {
    pub place: Place,
    pub postgres: Postgres,
    pub secret: String,
    pub prefix: String,
}

pub struct Postgres {
    pub login: String,
    pub place: String,
    pub bin: PathBuf,
    pub databases: Vec<String>,
}

impl Postgres {
    pub fn at_hand() -> Option<Self> {
        let url = service("LIFEBELT_PG15_URL")?;
        let (login, place) = url.strip_prefix("postgres://")?.split_once('@')?;
        Some(Self {
            login: login.to_owned(),
            place: place.split('/').next()?.to_owned(),
            bin: service("LIFEBELT_PG15_BIN")?.into(),
            databases: Vec::new(),
        })
    }

    pub fn password(&self) -> &str {
        self.login.split_once(':').unwrap().1
    }

    pub fn url(&self, database: &str) -> String {
        let user = self.login.split_once(':').unwrap().0;
        format!("postgres://{user}@{}/{database}", self.place)
    }

    /// The name of a database that goes away with the test.
    pub fn name(&mut self, what: &str) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what}_{}_{count}", std::process::id());
        self.databases.push(name.clone());
        name
    }

    pub fn psql(&self, database: &str, statements: &str) -> String {
        let output = Command::new(self.bin.join("psql"))
            .args([
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                &self.url(database),
                "-c",
                statements,
            ])
            .env("PGPASSWORD", self.password())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for name in &self.databases {
                self.psql(
                    "postgres",
                    &format!("drop database if exists {name} with (force)"),
                );
            }
        }
    }
}

/// 6 MB of rows, of which a bucket holds several megabytes in a file of their own.
pub const ROWS: &str =
    "create table orders as select n as id, md5(n::text) || md5((n + 1)::text) as note
    from generate_series(1, 60000) n";

pub const DIGEST: &str = "select count(*), md5(string_agg(o::text, ',' order by id)) from orders o";

impl Vertical {
    pub fn new() -> Option<Self> {
        let mut postgres = Postgres::at_hand()?;
        let place = Place::empty();
        let (endpoint, bucket) = (
            service("LIFEBELT_S3_ENDPOINT")?,
            service("LIFEBELT_S3_LOCKED_BUCKET")?,
        );
        let (id, secret) = (
            service("LIFEBELT_S3_ACCESS_KEY")?,
            service("LIFEBELT_S3_SECRET_KEY")?,
        );
        let orders = postgres.name("orders");
        postgres.psql("postgres", &format!("create database {orders}"));
        postgres.psql(&orders, ROWS);
        place.write("db.password", &format!("{}\n", postgres.password()));
        place.write("s3.secret", &format!("{secret}\n"));
        let bin = postgres.bin.display();
        let url = postgres.url(&orders);
        let prefix = format!("program/{orders}");
        let text = format!(
            "{}
[sinks.local]
type = \"fs\"
path = \"local\"
[sinks.offsite]
type = \"s3\"
url = \"s3://{bucket}/{prefix}\"
endpoint = \"{endpoint}\"
access_key_id = \"{id}\"
secret_access_key_file = \"s3.secret\"
lock = {{ mode = \"compliance\", days = 1 }}
[jobs.orders]
source = {{ type = \"postgres\", url = \"{url}\", password_file = \"db.password\", bin = \"{bin}\" }}
sinks = [\"local\", \"offsite\"]
min_copies = 2
retention = {{ last = 1 }}
",
            place.keys()
        );
        place.write("lifebelt.toml", &text);
        Some(Self {
            place,
            postgres,
            secret,
            prefix,
        })
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        let path = format!(
            "{}:{}",
            self.postgres.bin.display(),
            std::env::var("PATH").unwrap()
        );
        command.env("PATH", path);
        command.env("PGPASSWORD", self.postgres.password());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    pub fn orders(&self) -> &str {
        &self.postgres.databases[0]
    }

    /// The files of MinIO in which the objects of `part` are.
    pub fn on_disk(&self, part: &str) -> Vec<PathBuf> {
        let root = PathBuf::from(service("LIFEBELT_S3_DATA").unwrap());
        let root = root
            .join(service("LIFEBELT_S3_LOCKED_BUCKET").unwrap())
            .join(&self.prefix);
        let mut files = Vec::new();
        walk(&root, &mut files);
        files.retain(|file| {
            let path = file.display().to_string();
            path.contains(part) && file.file_name().is_some_and(|name| name == "part.1")
        });
        files
    }

    pub fn assert_clean(&self, what: &str, text: &str) {
        let identity = self.place.read("keys/identity.txt");
        let signing = self.place.read("keys/minisign.key");
        let secrets = [
            self.postgres.password(),
            &self.secret,
            identity.lines().last().unwrap(),
            signing.lines().nth(1).unwrap(),
        ];
        for secret in secrets {
            assert!(!text.contains(secret), "{what} shows a secret: {text}");
        }
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, files),
            false => files.push(path),
        }
    }
}
