//! Who gets to see the passwords of a database and of a bucket.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;
mod servers;

use std::process::Stdio;

use backup_core::testing::service;
use common::{Said, wait_until};
use servers::Vertical;

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
            service("LIFEBELT_S3_ACCESS_KEY").unwrap()
        ),
        "",
    );
    let mut running = vertical.command(&["run"]);
    running
        .env(
            "AWS_ACCESS_KEY_ID",
            service("LIFEBELT_S3_ACCESS_KEY").unwrap(),
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
