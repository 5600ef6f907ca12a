//! What is said about mistakes, word for word.

use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind};

use super::environment::Environment;
use super::*;
use crate::Registry;

const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// A good file; tests replace a piece of it.
const GOOD: &str = r#"role = "operator"
state_dir = "state"
[keys]
recipients = ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]
[sinks.local]
type = "fs"
path = "backups"
[sinks.offsite]
type = "fs"
path = "/mnt/offsite"
[targets.scratch]
type = "files"
path = "scratch"
[jobs.orders]
source = { type = "files", path = "/srv/orders" }
compress = "zstd:3"
sinks = ["local", "offsite"]
min_copies = 1
schedule = "0 2 * * *"
retention = { daily = 7, weekly = 4 }
retention_by_sink = { offsite = { daily = 30, within = "48h" } }
labels = ["nightly"]
rate_limit = "50MiB/s"
objectives = { rpo = "24h", rto = "4h" }
"#;

/// Knows the types, and makes nothing: reading a file must not.
fn registry() -> Registry {
    fn none<T>(_: &Options) -> backup_core::Result<T> {
        unreachable!("reading a configuration makes nothing")
    }
    let mut registry = Registry::default();
    registry
        .sink("fs", none)
        .source("files", none)
        .source("command", none);
    registry.target("files", none).target("command", none);
    registry
}

fn load(text: &str, variables: &str) -> Result<Loaded, Error> {
    Loaded::parse(
        text,
        Path::new("lifebelt.toml"),
        PathBuf::from("/etc/lifebelt"),
        Environment::of(variables),
        &registry(),
    )
}

fn line(text: &str) -> String {
    let error = load(text, "DB_PASSWORD=hunter2\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let line = error.chain();
    assert!(!line.contains('\n'), "{line:?} is one line");
    assert!(!line.contains("hunter2"), "no secret: {line}");
    line
}

#[test]
fn a_good_file_is_read() {
    let loaded = load(GOOD, "").unwrap();
    let config = &loaded.config;
    assert_eq!(
        config.state_dir.as_deref(),
        Some(Path::new("/etc/lifebelt/state"))
    );
    assert_eq!(config.keys.recipients, [RECIPIENT]);
    let job = &config.jobs["orders"];
    assert_eq!(job.compress, Compress::Zstd(3));
    assert_eq!(job.rate_limit, Some(Rate(50 << 20)));
    assert_eq!(job.retention_by_sink["offsite"].daily, Some(30));
    assert_eq!(
        config.sinks["local"].resolve("backups"),
        Path::new("/etc/lifebelt/backups")
    );
}

/// What is replaced in the good file, by what, and the line that comes of it.
const MISTAKES: &[(&str, &str, &str)] = &[
    // The file as a whole.
    (
        "role = \"operator\"",
        "role = operator",
        "lifebelt.toml:1: string values must be quoted, expected literal string",
    ),
    (
        "[jobs.orders]",
        "[jobs.orders",
        "lifebelt.toml:14: unclosed table, expected `]`",
    ),
    (
        "role = ",
        "roel = ",
        "lifebelt.toml:1: roel: unknown field; did you mean `role`?",
    ),
    (
        "[keys]",
        "[locks]",
        "lifebelt.toml:3: locks: unknown field; known here: role, environment, state_dir, keys, sinks, jobs, targets",
    ),
    (
        "\"operator\"",
        "\"opertor\"",
        "lifebelt.toml:1: role: \"opertor\" is not known; did you mean \"operator\"?",
    ),
    (
        "\"operator\"",
        "7",
        "lifebelt.toml:1: role: must be a string",
    ),
    (
        "\"state\"",
        "[\"state\"]",
        "lifebelt.toml:2: state_dir: must be a path, not a list",
    ),
    // Keys.
    (
        "recipients = [\"age1ql3z",
        "recipients = [\"age1qqqz",
        "lifebelt.toml:4: keys.recipients[0]: is no recipient; write the line of recipient.txt that begins with age1",
    ),
    (
        "recipients = [",
        "recipients = [\"AGE-SECRET-KEY-1X\", ",
        "lifebelt.toml:4: keys.recipients[0]: a secret key stands here; write the public one that begins with age1, and make a new pair if anybody could read this file",
    ),
    (
        "[keys]\n",
        "[keys]\nrecipient = 1\n",
        "lifebelt.toml:4: keys.recipient: unknown field; did you mean `recipients`?",
    ),
    (
        "[keys]\n",
        "[keys]\ntrusted_keys = [\"RWQ\"]\n",
        "lifebelt.toml:4: keys.trusted_keys[0]: is no public key; write the line of minisign.pub that begins with RW",
    ),
    (
        "[keys]\n",
        "[keys]\nidentity_file = \"a\"\nidentity = \"b\"\n",
        "lifebelt.toml:5: keys.identity: given more than once; keep one of identity, identity_file and identity_command",
    ),
    (
        "[keys]\n",
        "[keys]\nsigning_key_file = \"k\"\n",
        "lifebelt.toml:3: keys.trusted_keys: missing, so that nobody would look at the signatures; write [\"RW...\"], the second line of minisign.pub",
    ),
    (
        "[keys]\n",
        "[keys]\nidentity_command = \"pass show key\"\n",
        "lifebelt.toml:4: keys.identity_command: must be a list, [..], not a string",
    ),
    (
        "role = \"operator\"\nstate_dir = \"state\"\n[keys]\n",
        "role = \"writer\"\n[keys]\nidentity_file = \"identity.txt\"\n",
        "lifebelt.toml:3: keys.identity_file: a writer must not hold what decrypts; remove it here, or write role = \"operator\"",
    ),
    // Sinks and targets.
    (
        "[sinks.local]\ntype = \"fs\"",
        "[sinks.local]\ntype = \"sf\"",
        "lifebelt.toml:6: sinks.local.type: \"sf\" is not known; did you mean \"fs\"?",
    ),
    (
        "[sinks.local]\ntype = \"fs\"",
        "[sinks.local]\ntype = \"tape\"",
        "lifebelt.toml:6: sinks.local.type: \"tape\" is not known; write \"fs\"",
    ),
    (
        "[sinks.local]\ntype = \"fs\"\n",
        "[sinks.local]\n",
        "lifebelt.toml:5: sinks.local.type: missing; write `type = \"files\"`",
    ),
    (
        "[sinks.local]",
        "[sinks.\"lo cal\"]",
        "lifebelt.toml:5: sinks.\"lo cal\": name \"lo cal\" has ' '; letters, digits and . _ - + are allowed",
    ),
    (
        "[targets.scratch]\ntype = \"files\"",
        "[targets.scratch]\ntype = \"fs\"",
        "lifebelt.toml:12: targets.scratch.type: \"fs\" is not known; write \"command\" or \"files\"",
    ),
    // Jobs.
    (
        "[jobs.orders]",
        "[jobs.\"../etc\"]",
        "lifebelt.toml:14: jobs.\"../etc\": name \"../etc\" must not begin with a dot or a dash",
    ),
    (
        "source = { type = \"files\", path = \"/srv/orders\" }\n",
        "",
        "lifebelt.toml:14: jobs.orders.source: missing; write `source = { type = \"files\", path = \"/srv/data\" }`",
    ),
    (
        "source = { type = \"files\"",
        "source = { type = \"file\"",
        "lifebelt.toml:15: jobs.orders.source.type: \"file\" is not known; did you mean \"files\"?",
    ),
    (
        "source = {",
        "sorce = {",
        "lifebelt.toml:15: jobs.orders.sorce: unknown field; did you mean `source`?",
    ),
    (
        "\"zstd:3\"",
        "\"zstd:33\"",
        "lifebelt.toml:16: jobs.orders.compress: \"zstd:33\" is no compression; write \"zstd:1\" to \"zstd:19\", \"gzip:1\" to \"gzip:9\" or \"none\"",
    ),
    (
        "\"zstd:3\"",
        "3",
        "lifebelt.toml:16: jobs.orders.compress: must be a string, not a number",
    ),
    (
        "sinks = [\"local\", \"offsite\"]",
        "sinks = [\"local\", \"ofsite\"]",
        "lifebelt.toml:17: jobs.orders.sinks[1]: no sink is called \"ofsite\"; did you mean \"offsite\"?",
    ),
    (
        "sinks = [\"local\", \"offsite\"]",
        "sinks = [\"tape\"]",
        "lifebelt.toml:17: jobs.orders.sinks[0]: no sink is called \"tape\"; write \"local\" or \"offsite\"",
    ),
    (
        "sinks = [\"local\", \"offsite\"]",
        "sinks = \"local\"",
        "lifebelt.toml:17: jobs.orders.sinks: must be a list, [..], not a string",
    ),
    (
        "sinks = [\"local\", \"offsite\"]",
        "sinks = []",
        "lifebelt.toml:17: jobs.orders.sinks: no sink here; write a name from [sinks], such as [\"local\"]",
    ),
    (
        "sinks = [\"local\", \"offsite\"]",
        "sinks = [\"local\", \"local\"]",
        "lifebelt.toml:17: jobs.orders.sinks[1]: \"local\" is in the list twice; remove one",
    ),
    (
        "\"/mnt/offsite\"",
        "\"../lifebelt/./backups/\"",
        "lifebelt.toml:17: jobs.orders.sinks[1]: \"offsite\" is the same place as \"local\", which makes one copy, not two; remove one",
    ),
    (
        "min_copies = 1",
        "min_copies = 3",
        "lifebelt.toml:18: jobs.orders.min_copies: 3 copies, but 2 in sinks; write at most 2",
    ),
    (
        "min_copies = 1",
        "min_copies = 0",
        "lifebelt.toml:18: jobs.orders.min_copies: 0 copies are no backup; write 1 or more",
    ),
    (
        "min_copies = 1",
        "min_copies = -1",
        "lifebelt.toml:18: jobs.orders.min_copies: must be a whole number, 0 or more",
    ),
    (
        "\"0 2 * * *\"",
        "\"@nightly\"",
        "lifebelt.toml:19: jobs.orders.schedule: \"@nightly\" has 1 fields, a schedule has 5: minute hour day month weekday, such as \"0 2 * * *\"",
    ),
    (
        "\"0 2 * * *\"",
        "\"0 25 * * *\"",
        "lifebelt.toml:19: jobs.orders.schedule: \"25\" is no hour; write *, */2, 0 to 23, a range or a list",
    ),
    (
        "schedule =",
        "timezone = \"Berlin\"\nschedule =",
        "lifebelt.toml:19: jobs.orders.timezone: \"Berlin\" is not known; write a name such as \"Europe/Berlin\"",
    ),
    (
        "{ daily = 7,",
        "{ dayly = 7,",
        "lifebelt.toml:20: jobs.orders.retention.dayly: unknown field; did you mean `daily`?",
    ),
    (
        "{ daily = 7, weekly = 4 }",
        "{}",
        "lifebelt.toml:20: jobs.orders.retention: retention keeps nothing; set one of hourly, daily, weekly, monthly, yearly, last, days, within, window, or forever = true",
    ),
    (
        "retention_by_sink = { offsite",
        "retention_by_sink = { offside",
        "lifebelt.toml:21: jobs.orders.retention_by_sink.offside: no sink is called \"offside\"; did you mean \"offsite\"?",
    ),
    (
        "\"48h\"",
        "\"48\"",
        "lifebelt.toml:21: jobs.orders.retention_by_sink.offsite.within: \"48\" is no length of time; write a whole number and one of s, m, h, d, w, mo, y: \"36h\", \"30d\"",
    ),
    (
        "labels = [\"nightly\"]",
        "labels = [\"every night\"]",
        "lifebelt.toml:22: jobs.orders.labels[0]: name \"every night\" has ' '; letters, digits and . _ - + are allowed",
    ),
    (
        "\"50MiB/s\"",
        "\"fast\"",
        "lifebelt.toml:23: jobs.orders.rate_limit: is no rate; write a number, a unit and /s, such as \"50MiB/s\"",
    ),
    (
        "labels =",
        "threads = 0\nlabels =",
        "lifebelt.toml:22: jobs.orders.threads: write 1 to 256",
    ),
    (
        "labels =",
        "sign_parts = true\nlabels =",
        "lifebelt.toml:22: jobs.orders.sign_parts: there is no signing key; set keys.signing_key_file",
    ),
    (
        "labels =",
        "sign_parts = \"yes\"\nlabels =",
        "lifebelt.toml:22: jobs.orders.sign_parts: must be true or false, not a string",
    ),
    (
        "rto = \"4h\"",
        "rta = \"4h\"",
        "lifebelt.toml:24: jobs.orders.objectives.rta: unknown field; did you mean `rto`?",
    ),
    // Variables. The value of DB_PASSWORD is not shown.
    (
        "\"/srv/orders\"",
        "\"${ORDERS}\"",
        "lifebelt.toml:15: jobs.orders.source.path: `${ORDERS}` is not set; set ORDERS in the environment or in .env, or write `${ORDERS:-default}`",
    ),
    (
        "min_copies = 1",
        "min_copies = \"${DB_PASSWORD}\"",
        "lifebelt.toml:18: jobs.orders.min_copies: must be a whole number, 0 or more, not a string",
    ),
    (
        "\"zstd:3\"",
        "\"${DB_PASSWORD}\"",
        "lifebelt.toml:16: jobs.orders.compress: \"${DB_PASSWORD}\" is no compression; write \"zstd:1\" to \"zstd:19\", \"gzip:1\" to \"gzip:9\" or \"none\"",
    ),
    (
        "rate_limit = \"50MiB/s\"",
        "rate_limit = \"${DB_PASSWORD}\"",
        "lifebelt.toml:23: jobs.orders.rate_limit: is no rate; write a number, a unit and /s, such as \"50MiB/s\"",
    ),
];

#[test]
fn every_mistake_is_one_line_with_its_place_and_what_to_write() {
    let mut wrong = Vec::new();
    for (piece, instead, expected) in MISTAKES {
        assert!(GOOD.contains(piece), "{piece} is in the good file");
        let line = line(&GOOD.replacen(piece, instead, 1));
        if line != *expected {
            wrong.push(format!("{line}\n  expected: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_without_jobs_says_so() {
    assert_eq!(
        line(""),
        "lifebelt.toml:1: jobs: missing; write `[jobs.NAME]`"
    );
    assert_eq!(
        line("[jobs]\n"),
        "lifebelt.toml:1: jobs: no job here; write [jobs.NAME]"
    );
}

#[test]
fn nothing_is_unencrypted_unless_it_says_so() {
    let keys = format!("[keys]\nrecipients = [\"{RECIPIENT}\"]\n");
    let without = GOOD.replacen(&keys, "", 1);
    assert_eq!(
        line(&without),
        "lifebelt.toml:12: jobs.orders.unencrypted: nothing encrypts this job; \
         set keys.recipients, or write unencrypted = true"
    );
    let said = without.replacen("labels", "unencrypted = true\nlabels", 1);
    assert!(load(&said, "").is_ok());
}

#[test]
fn production_is_said_by_the_file_or_by_env() {
    assert!(!load(GOOD, "").unwrap().is_production());
    assert!(load(GOOD, "ENV=production").unwrap().is_production());
    let said = format!("environment = \"Production\"\n{GOOD}");
    assert!(load(&said, "").unwrap().is_production());
}

#[test]
fn debug_shows_no_value_of_a_plugin() {
    let text = GOOD.replacen("/srv/orders", "${DB_PASSWORD}", 1);
    let loaded = load(&text, "DB_PASSWORD=hunter2").unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn a_secret_is_a_value_a_file_or_the_output_of_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "from-file\n").unwrap();
    let revealed = |fields: &str| {
        let table = toml::from_str(&format!("type = \"x\"\n{fields}")).unwrap();
        Options::new(table)
            .reveal("password")
            .map(|o| o.text("password").map(str::to_owned))
    };
    let text = |fields: &str| revealed(fields).unwrap().unwrap();
    assert_eq!(text("password = \"plain\""), "plain");
    assert_eq!(text(&format!("password_file = {file:?}")), "from-file");
    assert_eq!(text("password_command = [\"echo\", \"said\"]"), "said");
    assert_eq!(revealed("").unwrap(), None);
    assert_eq!(
        revealed("password = \"a\"\npassword_file = \"b\"")
            .unwrap_err()
            .chain(),
        "password: given more than once; keep one of the value, the `_file` and the `_command`"
    );
    let missing = revealed("password_file = \"/nowhere\"")
        .unwrap_err()
        .chain();
    assert!(
        missing.starts_with("password_file: /nowhere cannot be read"),
        "{missing}"
    );
}

#[test]
fn secrets_of_a_table_are_revealed_by_name() {
    let table =
        toml::from_str("type = \"x\"\nenv = { A = \"1\", B_command = [\"echo\", \"2\"] }").unwrap();
    let options = Options::new(table).reveal("env").unwrap();
    #[derive(Deserialize)]
    struct Env {
        env: std::collections::BTreeMap<String, String>,
    }
    let env = options.read::<Env>().unwrap().env;
    assert_eq!(env["A"], "1");
    assert_eq!(env["B"], "2");
    assert_eq!(env.len(), 2);
}

/// Cut anywhere, and with any character gone or another in its place: an answer or one line.
#[test]
fn no_damage_to_a_file_makes_a_panic() {
    let check = |text: &str| {
        if let Err(error) = load(text, "") {
            let line = error.chain();
            assert!(
                line.starts_with("lifebelt.toml:") && !line.contains('\n'),
                "{line:?}"
            );
        }
    };
    for at in 0..GOOD.len() {
        let (before, after) = (&GOOD[..at], &GOOD[at + 1..]);
        check(before);
        for instead in ["", "\"", "[", ".", "\n", "${", "=", "\u{1f6df}"] {
            check(&format!("{before}{instead}{after}"));
        }
    }
}
