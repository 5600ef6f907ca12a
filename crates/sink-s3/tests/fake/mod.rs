//! A strict S3 server in memory: it enforces what AWS does and MinIO forgives.
//!
//! `rules.rs` is the table of what every request must hold, each with its source; `wire.rs` has the
//! table of operations. Written from the documentation of Amazon S3 and from answers that users of
//! AWS report; what is not in the tables is answered with 501. One region, path-style addresses.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test takes what it needs of this"
)]

pub mod client;
pub mod faults;
mod listing;
pub mod rules;
pub mod sign;
pub mod store;
mod sums;
mod uploads;
pub mod wire;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use backup_core::{Clock, SystemClock};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use client::{Client, Keys};
use faults::{Effect, Faults, Fired};
use rules::{Case, RULES};
use sign::{decode, parse_query};
use store::Bucket;
use wire::{Op, Request, Result, refusal, refusal_with, reply};

/// A bucket without versions.
pub const PLAIN: &str = "plain";
/// A bucket with Object Lock, and so with versions.
pub const LOCKED: &str = "locked";
/// A bucket that lives in another region.
pub const ELSEWHERE: &str = "elsewhere";

/// The server. It ends when it is dropped.
pub struct Fake {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

struct State {
    keys: Keys,
    expired: bool,
    /// How far the server's clock is ahead, in seconds.
    ahead: i64,
    /// Entries of one page of a listing.
    page: usize,
    buckets: BTreeMap<String, Bucket>,
    faults: Faults,
    log: Vec<(Op, String)>,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let locked = Bucket {
            locked: true,
            ..Bucket::default()
        };
        let state = State {
            keys: Keys {
                access: "FAKEACCESS".to_owned(),
                secret: format!("canary-{}", endpoint.len()),
                token: None,
            },
            expired: false,
            ahead: 0,
            page: 1000,
            buckets: [
                (PLAIN.to_owned(), Bucket::default()),
                (LOCKED.to_owned(), locked),
            ]
            .into(),
            faults: Faults::default(),
            log: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let server = tokio::spawn(serve(listener, state.clone()));
        Self {
            endpoint,
            state,
            server,
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap())
    }

    pub fn keys(&self) -> Keys {
        self.with(|state| state.keys.clone())
    }

    /// From now on only the keys with this session token are good.
    pub fn use_token(&self, token: &str) {
        self.with(|state| state.keys.token = Some(token.to_owned()));
    }

    /// From now on the keys are too old.
    pub fn expire(&self) {
        self.with(|state| state.expired = true);
    }

    /// Sets the server's clock ahead of ours.
    pub fn set_ahead(&self, seconds: i64) {
        self.with(|state| state.ahead = seconds);
    }

    /// The most entries of one page of a listing.
    pub fn set_page(&self, page: usize) {
        self.with(|state| state.page = page);
    }

    /// Gives the locked bucket a default retention.
    pub fn set_default_lock(&self, mode: &str, days: u32) {
        self.with(|state| {
            let bucket = state.buckets.get_mut(LOCKED).unwrap();
            bucket.default = Some((mode.to_owned(), days));
        });
    }

    /// The `n`-th request for `op` (from 0) whose key contains `key` fails so.
    pub fn fault(&self, op: Op, key: &str, n: usize, effect: Effect) -> Fired {
        self.with(|state| state.faults.add(op, key, (n, 1, 1), effect))
    }

    /// Every request for `op` whose key contains `key` fails so.
    pub fn always(&self, op: Op, key: &str, effect: Effect) -> Fired {
        self.with(|state| state.faults.add(op, key, (0, usize::MAX, 1), effect))
    }

    /// One in `every` requests for `op` is told to slow down.
    pub fn slow_down(&self, op: Op, every: usize) -> Fired {
        let effect = Effect::Refuse(503, "SlowDown");
        self.with(|state| state.faults.add(op, "", (0, usize::MAX, every), effect))
    }

    /// How many uploads are neither completed nor aborted, in all buckets.
    pub fn uploads(&self) -> usize {
        self.with(|state| {
            state
                .buckets
                .values()
                .map(|bucket| bucket.uploads.len())
                .sum()
        })
    }

    /// How many requests for `op` were let in.
    pub fn count(&self, op: Op) -> usize {
        self.with(|state| state.log.iter().filter(|(known, _)| *known == op).count())
    }

    /// A client with the right keys.
    pub fn client(&self) -> Client {
        Client {
            endpoint: self.endpoint.clone(),
            keys: self.keys(),
            region: "us-east-1".to_owned(),
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, io::Error>;

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, state.clone()));
            // A client that goes away is the client's affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: http::Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> io::Result<http::Response<Body>> {
    let (head, body) = request.into_parts();
    // A body that ends early never becomes a request.
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let is_head = head.method == http::Method::HEAD;
    let path = decode(head.uri.path());
    let query = parse_query(head.uri.query().unwrap_or_default());
    let request = match (path, query) {
        (Some(path), Some(query)) => {
            Request::new(head.method.to_string(), path, query, head.headers, body)
        }
        _ => Err(refusal(
            400,
            "InvalidURI",
            "Couldn't parse the specified URI.",
        )),
    };
    let (mut reply, effect) = match request {
        Ok(request) => {
            let effect = admit(&request, &mut state.lock().unwrap());
            match effect {
                Err(refused) => (refused, None),
                Ok(effect) => {
                    if let Some(Effect::Slow(time)) = effect {
                        tokio::time::sleep(time).await;
                    }
                    if matches!(effect, Some(Effect::HangUp)) {
                        return Err(io::Error::other("by script"));
                    }
                    let instead = effect.as_ref().and_then(Effect::instead);
                    let reply = instead.unwrap_or_else(|| {
                        let state = &mut *state.lock().unwrap();
                        perform(&request, state).unwrap_or_else(|refused| refused)
                    });
                    let reply = match &effect {
                        Some(effect) => effect.after(reply),
                        None => reply,
                    };
                    (reply, effect)
                }
            }
        }
        Err(refused) => (refused, None),
    };
    if is_head {
        reply.length = Some(reply.body.len());
        reply.body = Bytes::new();
    }
    let mut response = http::Response::builder().status(reply.status);
    let length = reply.length.unwrap_or(reply.body.len());
    if let Some(headers) = response.headers_mut() {
        headers.extend(reply.header_map());
        if reply.status != 204 {
            headers.insert("content-length", length.into());
        }
    }
    let mut frames = vec![Ok(Frame::data(reply.body.clone()))];
    if let Some(cut) = effect.and_then(|effect| effect.cut(&reply.body)) {
        let end = io::Error::new(io::ErrorKind::ConnectionReset, "by script");
        frames = vec![Ok(Frame::data(cut)), Err(end)];
    }
    let body = StreamBody::new(stream::iter(frames));
    response
        .body(BodyExt::boxed(body))
        .map_err(io::Error::other)
}

fn now(state: &State) -> SystemTime {
    let time = SystemClock.now();
    let offset = Duration::from_secs(state.ahead.unsigned_abs());
    match state.ahead {
        0.. => time + offset,
        _ => time - offset,
    }
}

/// Everything that is checked before the bucket is looked at, and then the script.
fn admit(request: &Request, state: &mut State) -> Result<Option<Effect>> {
    let case = Case {
        request,
        keys: &state.keys,
        expired: state.expired,
        region: "us-east-1",
        now: now(state),
    };
    for rule in RULES {
        (rule.check)(&case)?;
    }
    if request.bucket == ELSEWHERE {
        let message = "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint.";
        let more = "<Endpoint>s3.eu-central-1.amazonaws.com</Endpoint>";
        return Err(refusal_with(301, "PermanentRedirect", message, more)
            .header("x-amz-bucket-region", "eu-central-1"));
    }
    if !state.buckets.contains_key(&request.bucket) {
        let message = "The specified bucket does not exist";
        return Err(refusal(404, "NoSuchBucket", message));
    }
    state.log.push((request.op, request.key.clone()));
    Ok(state.faults.next(request))
}

fn perform(request: &Request, state: &mut State) -> Result {
    let (now, page) = (now(state), state.page);
    let missing = || refusal(404, "NoSuchBucket", "The specified bucket does not exist");
    let bucket = state.buckets.get_mut(&request.bucket).ok_or_else(missing)?;
    match request.op {
        Op::AbortMultipartUpload => bucket.abort_upload(request),
        Op::CompleteMultipartUpload => bucket.complete_upload(request, now),
        Op::CreateMultipartUpload => bucket.create_upload(request, now),
        Op::DeleteObject => bucket.delete(request, now),
        Op::DeleteObjects => bucket.delete_several(request, now),
        Op::GetBucketLifecycleConfiguration => Err(refusal(
            404,
            "NoSuchLifecycleConfiguration",
            "The lifecycle configuration does not exist",
        )),
        Op::GetBucketLocation => Ok(reply(200).xml("<LocationConstraint/>".to_owned())),
        Op::GetBucketVersioning => Ok(bucket.versioning()),
        Op::GetObject | Op::HeadObject => bucket.get(request),
        Op::GetObjectLegalHold => bucket.legal_hold(request),
        Op::GetObjectLockConfiguration => bucket.lock_configuration(),
        Op::GetObjectRetention => bucket.retention(request),
        Op::HeadBucket => Ok(reply(200).header("x-amz-bucket-region", "us-east-1")),
        Op::ListMultipartUploads => bucket.list_uploads(request, page),
        Op::ListObjectVersions => Ok(listing::versions(bucket, request, page)),
        Op::ListObjectsV2 => Ok(listing::objects(bucket, request, page)),
        Op::ListParts => bucket.list_parts(request),
        Op::PutObject => bucket.put(request, now),
        Op::PutObjectLegalHold => bucket.put_legal_hold(request),
        Op::PutObjectRetention => bucket.put_retention(request, now),
        Op::UploadPart => bucket.upload_part(request),
    }
}
