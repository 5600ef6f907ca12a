//! A server that speaks TLS, with a certificate of its own authority.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod support;

use std::path::Path;
use std::process::Command;

use backup_core::{
    ErrorKind, Job, MemorySink, Pipeline, RestoreRequest, Result, RunOptions, Target,
};
use store_postgres::{Postgres, PostgresDatabase};
use support::Server;
use support::cluster::Cluster;

/// Makes `NAME.crt` and `NAME.key` in `folder`: an authority, or what it signs.
fn certificate(folder: &Path, name: &str, subject: &str, authority: Option<&str>) {
    let at = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    let (key, crt) = (at("key"), at("crt"));
    let mut words: Vec<String> = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]
        .map(str::to_owned)
        .into();
    words.extend([
        "ec_paramgen_curve:prime256v1".into(),
        "-days".into(),
        "2".into(),
    ]);
    words.extend(["-keyout".into(), key, "-out".into(), crt]);
    words.extend(["-subj".into(), format!("/CN={subject}")]);
    if let Some(authority) = authority {
        let signer = |end: &str| {
            folder
                .join(format!("{authority}.{end}"))
                .display()
                .to_string()
        };
        words.extend(["-CA".into(), signer("crt"), "-CAkey".into(), signer("key")]);
        let name = match subject.parse::<std::net::IpAddr>() {
            Ok(_) => format!("subjectAltName=IP:{subject}"),
            Err(_) => format!("subjectAltName=DNS:{subject}"),
        };
        words.extend(["-addext".into(), name]);
        words.extend(["-addext".into(), "basicConstraints=CA:FALSE".into()]);
    }
    let made = Command::new("openssl").args(&words).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "openssl {words:?}: {said}");
}

/// A cluster whose certificate is for `name`, and the folder with the authority's.
fn cluster(like: &Server, name: &str) -> (Cluster, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "authority", "authority", None);
    certificate(folder.path(), "other", "other", None);
    certificate(folder.path(), "server", name, Some("authority"));
    let cluster = Cluster::start(like, &["ssl=on"], |data| {
        for file in ["server.crt", "server.key"] {
            std::fs::copy(folder.path().join(file), data.join(file)).unwrap();
        }
        std::fs::write(
            data.join("pg_hba.conf"),
            "hostssl all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
    });
    (cluster, folder)
}

/// There and back over connections with these parameters.
async fn there_and_back(server: &Server, parameters: &str) -> Result<()> {
    let sink = MemorySink::new();
    let url = |database: &str| format!("{}?{parameters}", server.url_with_password(database));
    let job = Job::builder("job")
        .source(Postgres::from_url(url("postgres"))?.bin(&server.bin))
        .pipeline(Pipeline::unencrypted())
        .sink("memory", sink.clone())
        .build()?;
    let id = job.run(RunOptions::default()).await?.id;
    let target = PostgresDatabase::from_url(url("back"))?.bin(&server.bin);
    let request = RestoreRequest::default().overwrite(target.to_string());
    let target: &dyn Target = &target;
    job.restore(&id, target, request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_looked_at_as_libpq_does() {
    let Some(like) = Server::at_hand(15) else {
        return;
    };
    let (cluster, folder) = cluster(&like, "127.0.0.1");
    let server = &cluster.server;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (authority, other) = (file("authority.crt"), file("other.crt"));
    for good in [
        "sslmode=prefer".to_owned(),
        "sslmode=require".to_owned(),
        format!("sslmode=verify-full&sslrootcert={authority}"),
    ] {
        there_and_back(server, &good).await.unwrap();
        let back = "select count(*) from pg_database where datname = 'back'";
        assert_eq!(server.psql("postgres", back).trim(), "1");
        server.psql("postgres", "drop database back");
    }
    for bad in [
        "sslmode=disable".to_owned(),
        format!("sslmode=verify-full&sslrootcert={other}"),
        "sslmode=verify-full&sslrootcert=system".to_owned(),
    ] {
        let error = there_and_back(server, &bad).await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(!error.chain().contains("canary"), "{error:?}");
        let said = error.chain();
        assert!(
            said.contains("certificate") || said.contains("no encryption"),
            "{bad}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_host_is_refused() {
    let Some(like) = Server::at_hand(15) else {
        return;
    };
    let (cluster, folder) = cluster(&like, "db.elsewhere");
    let authority = folder.path().join("authority.crt");
    let verified = format!("sslmode=verify-full&sslrootcert={}", authority.display());
    let error = there_and_back(&cluster.server, &verified)
        .await
        .unwrap_err();
    assert!(error.chain().contains("certificate"), "{error:?}");
    there_and_back(&cluster.server, "sslmode=require")
        .await
        .unwrap();
}
