//! A database that goes to a disk and a locked bucket, and comes back, by the program alone.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Place, Said, wait_until};

/// Servers of `scripts/services`, and a place with a job `orders` that uses them.
struct Vertical {
    place: Place,
    postgres: Postgres,
    secret: String,
    prefix: String,
}

struct Postgres {
    login: String,
    place: String,
    bin: PathBuf,
    databases: Vec<String>,
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    assert!(
        value.is_some() || std::env::var_os("LIFEBELT_REQUIRE_SERVICES").is_none(),
        "{name} is missing: eval \"$(scripts/services env)\" sets it"
    );
    if value.is_none() {
        eprintln!("not run: needs {name} (scripts/test sets it)");
    }
    value
}

impl Postgres {
    fn at_hand() -> Option<Self> {
        let url = variable("LIFEBELT_PG15_URL")?;
        let (login, place) = url.strip_prefix("postgres://")?.split_once('@')?;
        Some(Self {
            login: login.to_owned(),
            place: place.split('/').next()?.to_owned(),
            bin: variable("LIFEBELT_PG15_BIN")?.into(),
            databases: Vec::new(),
        })
    }

    fn password(&self) -> &str {
        self.login.split_once(':').unwrap().1
    }

    fn url(&self, database: &str) -> String {
        let user = self.login.split_once(':').unwrap().0;
        format!("postgres://{user}@{}/{database}", self.place)
    }

    /// The name of a database that goes away with the test.
    fn name(&mut self, what: &str) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what}_{}_{count}", std::process::id());
        self.databases.push(name.clone());
        name
    }

    fn psql(&self, database: &str, statements: &str) -> String {
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
const ROWS: &str =
    "create table orders as select n as id, md5(n::text) || md5((n + 1)::text) as note
    from generate_series(1, 60000) n";

const DIGEST: &str = "select count(*), md5(string_agg(o::text, ',' order by id)) from orders o";

impl Vertical {
    fn new() -> Option<Self> {
        let mut postgres = Postgres::at_hand()?;
        let place = Place::empty();
        let (endpoint, bucket) = (
            variable("LIFEBELT_S3_ENDPOINT")?,
            variable("LIFEBELT_S3_LOCKED_BUCKET")?,
        );
        let (id, secret) = (
            variable("LIFEBELT_S3_ACCESS_KEY")?,
            variable("LIFEBELT_S3_SECRET_KEY")?,
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

    fn command(&self, arguments: &[&str]) -> Command {
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

    fn run(&self, arguments: &[&str]) -> Said {
        self.command(arguments).output().unwrap().into()
    }

    fn orders(&self) -> &str {
        &self.postgres.databases[0]
    }

    /// The files of MinIO in which the objects of `part` are.
    fn on_disk(&self, part: &str) -> Vec<PathBuf> {
        let root = PathBuf::from(variable("LIFEBELT_S3_DATA").unwrap());
        let root = root
            .join(variable("LIFEBELT_S3_LOCKED_BUCKET").unwrap())
            .join(&self.prefix);
        let mut files = Vec::new();
        walk(&root, &mut files);
        files.retain(|file| {
            let path = file.display().to_string();
            path.contains(part) && file.file_name().is_some_and(|name| name == "part.1")
        });
        files
    }

    fn assert_clean(&self, what: &str, text: &str) {
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

#[test]
fn a_database_goes_to_a_disk_and_a_locked_bucket_and_comes_back() {
    let Some(mut vertical) = Vertical::new() else {
        return;
    };
    let before = vertical.postgres.psql(vertical.orders(), DIGEST);
    let report = vertical.run(&["run", "--json"]).ends(0).json();
    assert_eq!(report["status"], "complete");
    assert_eq!(report["copies"].as_array().unwrap().len(), 2);
    let bound = report["memory_bound"].as_u64().unwrap();
    assert!(bound <= 96 << 20, "{bound}");
    vertical.run(&["verify", "orders"]).ends(0);
    let orders = vertical.orders().to_owned();
    vertical
        .postgres
        .psql("postgres", &format!("drop database {orders} with (force)"));

    for from in ["local", "offsite"] {
        let name = vertical.postgres.name("restored");
        let url = vertical.postgres.url(&name);
        let to = ["restore", "orders", "--from", from, "--to", &url];
        let plan = vertical.run(&[&to[..], &["--plan"]].concat()).ends(0);
        assert!(plan.out.contains("room: "), "{plan:?}");
        let said = vertical.run(&to).ends(0);
        assert_eq!(vertical.postgres.psql(&name, DIGEST), before, "from {from}");
        assert!(
            said.out
                .contains("  1. the restored database is postgres://"),
            "{said:?}"
        );
        assert!(said.out.contains("cut over"), "{said:?}");
        let again = vertical.run(&to).ends(6);
        assert!(again.err.contains("--overwrite postgres://"), "{again:?}");
    }
    let name = vertical.postgres.name("some");
    let url = vertical.postgres.url(&name);
    let some = [
        "restore", "orders", "--to", &url, "--table", "orders", "--json",
    ];
    let said = vertical.run(&some).ends(0).json();
    assert_eq!(said["next_steps"].as_array().unwrap().len(), 3);
    assert_eq!(vertical.postgres.psql(&name, DIGEST), before);
    let unknown = ["restore", "orders", "--to", "folder", "--trust-sql"];
    let refused = vertical.run(&unknown);
    assert_ne!(refused.code, 0, "{refused:?}");
}

#[test]
fn memory_stays_below_what_is_printed_with_a_disk_and_a_bucket() {
    let Some(vertical) = Vertical::new() else {
        return;
    };
    let noise = r#"
[jobs.noise]
source = { type = "command", argv = ["head", "-c", "200000000", "/dev/urandom"] }
sinks = ["local", "offsite"]
"#;
    let text = vertical.place.read("lifebelt.toml");
    vertical
        .place
        .write("lifebelt.toml", &format!("{text}{noise}"));
    let mut running = vertical.command(&["run", "noise", "--json"]);
    let mut running = running.stdout(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", running.id());
    let mut peak = 0;
    while running.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = kib.map_or(peak, |kib| kib << 10);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let said = Said::from(running.wait_with_output().unwrap()).ends(0);
    let bound = said.json()["memory_bound"].as_u64().unwrap();
    assert!(peak > 8 << 20, "the kernel was asked: {peak}");
    assert!(
        peak <= bound && bound <= 96 << 20,
        "{peak} of {bound} bytes"
    );
}

#[test]
fn what_is_locked_stays_and_what_a_disk_flips_is_found() {
    let Some(mut vertical) = Vertical::new() else {
        return;
    };
    let first = vertical.run(&["run", "--json"]).ends(0).json();
    vertical.run(&["run"]).ends(0);
    let pruned = vertical
        .run(&["prune", "--apply", "--max-deletes", "1", "--json"])
        .ends(0)
        .json();
    assert_eq!(pruned["deferred"][0]["id"], first["id"], "{pruned}");

    let id = vertical.run(&["ls", "--json"]).ends(0).json()[0]["id"].clone();
    let id = id.as_str().unwrap();
    let files = vertical.on_disk(&format!("{id}/db.dump"));
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    // MinIO finds it itself, and answers that it is too busy to read.
    let said = vertical.run(&["verify", "orders"]);
    assert!([2, 5].contains(&said.code), "{said:?}");
    let told = format!("{}{}", said.out, said.err);
    assert!(
        told.contains("offsite") && told.contains("db.dump"),
        "{said:?}"
    );

    let before = vertical.postgres.psql(vertical.orders(), DIGEST);
    let name = vertical.postgres.name("flipped");
    let url = vertical.postgres.url(&name);
    let said = vertical.run(&["restore", id, "--to", &url, "--from", "offsite"]);
    assert!([2, 5].contains(&said.code), "{said:?}");
    let exists = format!("select count(*) from pg_database where datname ~ '^{name}'");
    assert_eq!(
        vertical.postgres.psql("postgres", &exists),
        "0",
        "nothing is left of it"
    );
    vertical
        .run(&["restore", id, "--to", &url, "--from", "local"])
        .ends(0);
    assert_eq!(vertical.postgres.psql(&name, DIGEST), before);
}

#[test]
fn no_verb_and_no_error_shows_the_password_of_the_database_or_the_secret_of_the_bucket() {
    let Some(mut vertical) = Vertical::new() else {
        return;
    };
    let name = vertical.postgres.name("quiet");
    let url = vertical.postgres.url(&name);
    let loud = |vertical: &Vertical, verb: &[&str], code: Option<i32>| {
        for form in [&["-vvv"][..], &["-vvv", "--json", "--log-format", "json"]] {
            let all: Vec<&str> = form.iter().chain(verb).copied().collect();
            let said: Said = vertical
                .command(&all)
                .env("RUST_LOG", "trace")
                .output()
                .unwrap()
                .into();
            match code {
                Some(code) => assert_eq!(said.code, code, "{said:?}"),
                None => assert_ne!(said.code, 0, "{said:?}"),
            }
            vertical.assert_clean(verb[0], &said.out);
            vertical.assert_clean(verb[0], &said.err);
        }
    };
    loud(&vertical, &["run"], Some(0));
    for verb in [
        &["ls"][..],
        &["show", "orders"],
        &["verify", "orders"],
        &["doctor"],
        &["restore", "orders", "--to", &url, "--plan"],
    ] {
        loud(&vertical, verb, Some(0));
    }
    let target = format!("postgres://{}/{name}", vertical.postgres.place);
    vertical.run(&["restore", "orders", "--to", &url]).ends(0);
    let again = ["restore", "orders", "--to", &url, "--overwrite", &target];
    loud(&vertical, &again, Some(0));
    for (path, bytes) in vertical
        .place
        .files("local")
        .into_iter()
        .chain(vertical.place.files("state"))
    {
        vertical.assert_clean(path.to_str().unwrap(), &String::from_utf8_lossy(&bytes));
    }
    // And when it goes wrong.
    let good = vertical.place.read("lifebelt.toml");
    let database = format!("/{}\", password", vertical.orders());
    for (piece, instead) in [
        (&*database, "/no_such_database\", password"),
        (
            "type = \"s3\"",
            "type = \"s3\"\nstorage_class = \"NONSENSE\"",
        ),
        (
            "secret_access_key_file = \"s3.secret\"",
            "secret_access_key = \"wrong\"",
        ),
        ("bin = \"", "bin = \"/nowhere"),
    ] {
        vertical.place.edit(piece, instead);
        loud(&vertical, &["run"], None);
        vertical.place.write("lifebelt.toml", &good);
    }
    vertical.place.write("db.password", "wrong-canary\n");
    loud(&vertical, &["run"], Some(2));
}

/// The environment of the program has the bucket's secret too, as with AWS's own tools.
#[test]
fn programs_of_the_database_get_its_password_and_no_other_secret() {
    let Some(vertical) = Vertical::new() else {
        return;
    };
    let folder = vertical.place.path("bin");
    std::fs::create_dir(&folder).unwrap();
    let here = vertical.place.path("");
    for name in ["pg_dump", "pg_dumpall"] {
        // It waits until it was looked at.
        let text = format!(
            "#!/bin/sh\ncase $1 in --version) ;; *) echo x > {0}/began; while [ ! -e {0}/go ]; do sleep 0.05; done ;; esac\nexec {1} \"$@\"\n",
            here.display(),
            vertical.postgres.bin.join(name).display()
        );
        std::fs::write(folder.join(name), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.join(name), mode).unwrap();
    }
    let bin = format!("bin = \"{}\"", vertical.postgres.bin.display());
    vertical.place.edit(&bin, "bin = \"bin\"");
    vertical
        .place
        .edit("secret_access_key_file = \"s3.secret\"", "");
    vertical.place.edit(
        &format!(
            "access_key_id = \"{}\"",
            variable("LIFEBELT_S3_ACCESS_KEY").unwrap()
        ),
        "",
    );
    let mut running = vertical.command(&["run"]);
    running
        .env(
            "AWS_ACCESS_KEY_ID",
            variable("LIFEBELT_S3_ACCESS_KEY").unwrap(),
        )
        .env("AWS_SECRET_ACCESS_KEY", &vertical.secret)
        .env_remove("LIFEBELT_S3_SECRET_KEY")
        .stdout(Stdio::null());
    let running = running.spawn().unwrap();
    wait_until("the dump", || vertical.place.path("began").exists());
    let (mut programs, mut given) = (0, 0);
    for process in std::fs::read_dir("/proc").unwrap() {
        let process = process.unwrap().path();
        let read = |file: &str| std::fs::read(process.join(file)).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).into_owned();
        vertical.assert_clean("a command line", &line);
        if line.contains(&folder.display().to_string()) {
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            assert!(!environment.contains(&vertical.secret), "{environment}");
            programs += 1;
            given += usize::from(
                environment.contains(&format!("PGPASSWORD={}", vertical.postgres.password())),
            );
        }
    }
    vertical.place.write("go", "");
    let ended = running.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert!(programs >= 1 && given == programs, "{given} of {programs}");
}

/// Variables alone, as scripts around `pg_dump` have them.
#[test]
fn without_a_configuration_the_environment_says_what_to_do() {
    let Some(mut postgres) = Postgres::at_hand() else {
        return;
    };
    let place = Place::empty();
    let name = postgres.name("twelve");
    postgres.psql("postgres", &format!("create database {name}"));
    postgres.psql(&name, ROWS);
    let back = postgres.name("twelve_back");
    let (host, port) = postgres.place.split_once(':').unwrap();
    let recipient = place.read("keys/recipient.txt");
    let run = |more: &[(&str, &str)], arguments: &[&str]| -> Said {
        let mut command = place.command(arguments);
        for name in [
            "PGHOST",
            "PGPORT",
            "PGUSER",
            "PGPASSWORD",
            "PGDATABASE",
            "DATABASE_URL",
        ] {
            command.env_remove(name);
        }
        command
            .env("POSTGRES_HOST", host)
            .env("PGPORT", port)
            .env("POSTGRES_USER", "postgres")
            .env("POSTGRES_PASSWORD", postgres.password())
            .env("POSTGRES_DB", &name)
            .env("LIFEBELT_RECIPIENTS", recipient.trim())
            .env("BACKUP_PGDUMP_PATH", postgres.bin.join("pg_dump"))
            .env("BACKUP_PGRESTORE_PATH", postgres.bin.join("pg_restore"))
            .envs(more.iter().copied());
        command.output().unwrap().into()
    };
    let report = run(&[("LABEL", "pre-migration")], &["run", "--json"])
        .ends(0)
        .json();
    assert_eq!(report["job"], name.as_str());
    assert!(
        place.path(&format!("backups/{name}")).exists(),
        "the folder's usual name"
    );
    let kept = run(&[], &["ls"]).ends(0);
    assert!(
        kept.out.contains(report["id"].as_str().unwrap()),
        "{kept:?}"
    );
    let conflict = [("RETENTION_DAYS", "14"), ("BACKUP_RETENTION_DAYS", "7")];
    let said = run(&conflict, &["run"]).ends(1);
    assert!(
        said.err
            .contains("BACKUP_RETENTION_DAYS and RETENTION_DAYS"),
        "{said:?}"
    );
    let said = run(&[("PGPASSWORD", "canary-other")], &["run"]).ends(1);
    assert!(
        said.err.contains("PGPASSWORD and POSTGRES_PASSWORD"),
        "{said:?}"
    );
    assert!(!said.err.contains("canary-other"));

    let url = postgres.url(&back);
    let identity = place.path("keys/identity.txt");
    let restore = ["restore", "pre-migration", "--to", &url];
    let identity = [
        ("LIFEBELT_IDENTITY_FILE", identity.to_str().unwrap()),
        ("PGPASSWORD", postgres.password()),
    ];
    run(&identity, &restore).ends(0);
    assert_eq!(postgres.psql(&back, DIGEST), postgres.psql(&name, DIGEST));
    let production = [&identity[..], &[("ENV", "production")]].concat();
    let said = run(&production, &restore).ends(6);
    assert!(said.err.contains("--force"), "{said:?}");
}
