//! What comes from the environment, each time in a process of its own.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod common;

use std::path::Path;
use std::process::Command;

use backup_core::testing::noise;
use backup_core::{ByteStream, Key, PutOptions, Sink};
use common::VERSITYGW;
use sink_s3::S3Sink;

#[tokio::test]
#[ignore = "run by the others, with an environment of its own"]
async fn put_as_the_environment_says() {
    let put = async || {
        let url = std::env::var("SINK_S3_URL").unwrap();
        let sink = S3Sink::from_env(url)?;
        let data = ByteStream::from_bytes(noise(10, 1));
        let key = Key::parse("orders/1")?;
        sink.put(&key, data, &PutOptions::default()).await
    };
    match put().await {
        Ok(_) => println!("it worked"),
        Err(error) => println!("{:?}: {}", error.kind(), error.chain()),
    }
}

/// A home, and what a put says there.
struct Home(tempfile::TempDir);

impl Home {
    fn new(credentials: &str, config: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".aws");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("credentials"), credentials).unwrap();
        std::fs::write(folder.join("config"), config).unwrap();
        Self(home)
    }

    fn put(&self, variables: &[(&str, &str)]) -> String {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let home: &Path = self.0.path();
        let name = home.file_name().unwrap().display();
        let name = name.to_string().replace('.', "");
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "put_as_the_environment_says"])
            .args(["--ignored", "--nocapture"])
            .env_clear()
            .env("HOME", home)
            .env(
                "SINK_S3_URL",
                format!("s3://lifebelt/environment-{name}-{count}"),
            )
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn a_profile_says_who_asks_where_and_whom_to_trust() {
    let Some(server) = VERSITYGW.there() else {
        return;
    };
    let variable = |name| server.variable(name);
    let (id, secret) = (variable("ACCESS_KEY"), variable("SECRET_KEY"));
    let (endpoint, ca) = (variable("ENDPOINT"), variable("CA"));
    let keys = format!("aws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    let place = format!("region = us-east-1\nendpoint_url = {endpoint}\nca_bundle = {ca}\n");
    let nobody = "aws_access_key_id = nobody\naws_secret_access_key = x\n";

    let home = Home::new(
        &format!("[default]\n{nobody}[backups]\n{keys}"),
        &format!("[default]\n{place}[profile backups]\n{place}"),
    );
    let said = home.put(&[("AWS_PROFILE", "backups")]);
    assert!(said.contains("it worked"), "{said}");
    let said = home.put(&[]);
    assert!(said.contains("Denied"), "not as the default: {said}");
    // Variables are nearer.
    let said = home.put(&[
        ("AWS_ACCESS_KEY_ID", &id),
        ("AWS_SECRET_ACCESS_KEY", &secret),
    ]);
    assert!(said.contains("it worked"), "{said}");

    // The keys may stand in the configuration too, and all in other files.
    let home = Home::new("", "");
    let config = home.0.path().join("other");
    std::fs::write(&config, format!("[default]\n{keys}")).unwrap();
    let config = config.to_str().unwrap();
    let said = home.put(&[
        ("AWS_CONFIG_FILE", config),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_CA_BUNDLE", &ca),
    ]);
    assert!(said.contains("it worked"), "{said}");
}

#[test]
fn nobody_else_is_asked_where_credentials_cannot_be_had() {
    let web = [
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/x"),
    ];
    let both = "aws_access_key_id = a\naws_secret_access_key = b\n";
    for (config, says) in [
        ("[default]\nsso_session = corp", "sso_session"),
        (
            "[default]\ncredential_process = /bin/x",
            "credential_process",
        ),
        (&format!("[default]\n{both}role_arn = arn:x"), "role_arn"),
        (
            "[default]\naws_access_key_id = id",
            "aws_secret_access_key is not",
        ),
        (
            "[default]\naws_session_token = x",
            "aws_access_key_id is not",
        ),
        ("default = x", "line 1"),
    ] {
        let said = Home::new("", config).put(&web);
        assert!(
            said.contains("Invalid") || said.contains("Unsupported"),
            "{said}"
        );
        assert!(said.contains(says), "{config}: {said}");
    }
    let home = Home::new("", &format!("[default]\n{both}"));
    for (variable, says) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY is not"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID is not"),
        ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID is not"),
        ("AWS_PROFILE", "AWS_PROFILE"),
        ("AWS_CA_BUNDLE", "ca_file"),
    ] {
        let said = home.put(&[(variable, "x")]);
        assert!(said.contains("Invalid") && said.contains(says), "{said}");
    }
}
