//! A server that does its work and whose answer is lost.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::testing::noise;
use backup_core::{ByteStream, Key, Object, PutOptions, Sink};
use common::{MINIO, Server, VERSITYGW};
use futures::TryStreamExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use sink_s3::S3Sink;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

const LARGE: usize = 17 * 1024 * 1024;

/// Stands before a server and cuts the answer to one request. Speaks TLS to a server that wants it,
/// and none to its client.
struct Cutter {
    address: SocketAddr,
    fired: Arc<AtomicU64>,
}

impl Cutter {
    /// The first request whose head has all of `words` gets `bytes` of its answer.
    async fn start(server: Server, words: &'static [&'static str], bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fired = Arc::new(AtomicU64::new(0));
        let (count, armed) = (fired.clone(), Arc::new(AtomicU64::new(1)));
        let endpoint = server.variable("ENDPOINT");
        let behind = endpoint.split_once("://").unwrap().1.to_owned();
        let tls = server.authority().map(trusting);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&behind).await.unwrap();
                let (tls, armed, count) = (tls.clone(), armed.clone(), count.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else {
                        return pass(client, server, words, bytes, armed, count).await;
                    };
                    let name = server.peer_addr().unwrap().ip().into();
                    let server = tls.connect(name, server).await.unwrap();
                    pass(client, server, words, bytes, armed, count).await;
                });
            }
        });
        Self { address, fired }
    }
}

/// What believes the servers whose certificate is by the authority in this file.
fn trusting(authority: String) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

async fn pass(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    words: &'static [&'static str],
    mut bytes: usize,
    armed: Arc<AtomicU64>,
    fired: Arc<AtomicU64>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = split(server);
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    let mut cuts = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut up) => {
                let Ok(n @ 1..) = read else { return };
                let head = String::from_utf8_lossy(&up[..n.min(1_000)]);
                let line = head.lines().next().unwrap_or_default();
                if words.iter().all(|word| line.contains(word)) && armed.swap(0, Ordering::SeqCst) == 1 {
                    cuts = true;
                }
                if to_server.write_all(&up[..n]).await.is_err() { return }
                if to_server.flush().await.is_err() { return }
            }
            read = from_server.read(&mut down) => {
                let Ok(n @ 1..) = read else { return };
                let take = if cuts { n.min(bytes) } else { n };
                if to_client.write_all(&down[..take]).await.is_err() { return }
                if cuts && take < n {
                    fired.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                bytes -= if cuts { take } else { 0 };
            }
        }
    }
}

async fn put_through(server: Server, words: &'static [&'static str], len: usize) {
    let cutter = Cutter::start(server, words, 0).await;
    let sink = server
        .locked()
        .endpoint(format!("http://{}", cutter.address))
        .build()
        .unwrap();
    let key = Key::parse("orders/1").unwrap();
    let bytes = noise(len, 1);
    let data = ByteStream::from_bytes(bytes.clone());
    let object = sink.put(&key, data, &PutOptions::default()).await;
    assert_eq!(
        cutter.fired.load(Ordering::SeqCst),
        1,
        "{server:?}: no answer was cut"
    );
    let object = object.unwrap_or_else(|error| panic!("{server:?} {words:?}: {error:?}"));
    let versions: Vec<Object> = sink.versions(None).try_collect().await.unwrap();
    assert_eq!(
        versions.len(),
        1,
        "{server:?}: a second version: {versions:?}"
    );
    assert_eq!(versions[0].version, object.version, "{server:?}");
    let back = sink.get(&object.locator(), None).await.unwrap();
    assert!(
        back.collect(len).await.unwrap() == bytes,
        "{server:?}: other bytes"
    );
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_has_succeeded_once() {
    for server in [MINIO, VERSITYGW].into_iter().filter_map(Server::there) {
        put_through(server, &["PUT ", "orders/1"], 100).await;
        put_through(server, &["PUT ", "partNumber=2"], LARGE).await;
        put_through(server, &["POST ", "?uploadId="], LARGE).await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_taken_up_where_it_stopped() {
    for server in [MINIO, VERSITYGW].into_iter().filter_map(Server::there) {
        let sink = server.plain().build().unwrap();
        let key = Key::parse("orders/1").unwrap();
        let bytes = noise(LARGE, 1);
        let data = ByteStream::from_bytes(bytes.clone());
        let object = sink.put(&key, data, &PutOptions::default()).await.unwrap();

        let cutter = Cutter::start(server, &["GET ", "orders/1"], 1_000_000).await;
        let sink = S3Sink::builder(sink.to_string())
            .endpoint(format!("http://{}", cutter.address))
            .credentials(server.variable("ACCESS_KEY"), server.variable("SECRET_KEY"))
            .build()
            .unwrap();
        let back = sink.get(&object.locator(), None).await.unwrap();
        assert!(
            back.collect(LARGE).await.unwrap() == bytes,
            "{server:?}: other bytes"
        );
        assert_eq!(
            cutter.fired.load(Ordering::SeqCst),
            1,
            "{server:?}: nothing was cut"
        );
    }
}
