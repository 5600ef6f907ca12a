//! Requests to a cluster. Everything that this crate sends goes through here.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Identity, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::Failure;
use crate::server::{Server, invalid};

/// The longest answer that is read whole: the settings of thousands of indices.
const LONGEST: usize = 256 << 20;
const CONNECT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(4);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How often a request that changes nothing, or the same thing again, is sent at most: for some
/// six seconds.
const TRIES: u32 = 7;

/// Sends requests to one cluster.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Server,
}

/// What is asked of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    body: Bytes,
    content: &'static str,
    tries: u32,
    longest: usize,
}

impl Call {
    /// A request that is sent again where the server is busy or away.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: Bytes::new(),
            content: "application/json",
            tries: TRIES,
            longest: LONGEST,
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self
    }

    pub(crate) fn text(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn lines(mut self, body: Bytes) -> Self {
        self.body = body;
        self.content = "application/x-ndjson";
        self
    }

    /// Sent once: what fails may have been done.
    pub(crate) fn once(mut self) -> Self {
        self.tries = 1;
        self
    }

    /// An answer that is longer than so many bytes is [`TOO_LONG`].
    pub(crate) fn longest(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }
}

/// The status of an answer that is longer than it may be: "Content Too Large" (RFC 9110), which
/// servers say of requests.
pub(crate) const TOO_LONG: u16 = 413;

impl Client {
    /// `patience` is how long the server may be silent.
    pub(crate) fn new(server: &Server, patience: Duration) -> Result<Self> {
        let mut http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lifebelt/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT.min(patience))
            // What balances between nodes closes idle connections, after a minute or sooner.
            .pool_idle_timeout(IDLE)
            .read_timeout(patience);
        if let Some(file) = &server.tls.cacert {
            let roots = Certificate::from_pem_bundle(&read(file)?);
            let roots = roots.map_err(|e| unusable(file).with_source(e))?;
            http = http.tls_certs_merge(roots);
        }
        if let Some((cert, key)) = &server.tls.client {
            let pem = [read(key)?, read(cert)?].join(&b'\n');
            let identity = Identity::from_pem(&pem);
            http = http.identity(identity.map_err(|e| unusable(cert).with_source(e))?);
        }
        let http = http.build();
        Ok(Self {
            http: http.map_err(|e| invalid("TLS cannot be set up").with_source(e))?,
            server: server.clone(),
        })
    }

    /// The answer as what it says.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T> {
        let body = self.send(call).await?;
        serde_json::from_slice(&body).map_err(|e| {
            let what = self.named(call);
            Error::new(
                ErrorKind::Other,
                format!("{what}: the answer is none of OpenSearch"),
            )
            .with_source(e)
        })
    }

    /// The same, and `None` where there is no such thing.
    pub(crate) async fn find(&self, call: &Call) -> Result<Option<Value>> {
        match self.ask(call).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn send(&self, call: &Call) -> Result<Bytes> {
        self.try_send(call)
            .await
            .map_err(|failure| failure.into_error(&self.named(call)))
    }

    /// For who wants to know more of a failure than an error tells.
    pub(crate) async fn try_send(&self, call: &Call) -> Result<Bytes, Failure> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..call.tries {
            match self.once(call).await {
                Err(failure) if failure.broken || failure.is_transient() => {
                    tracing::debug!(path = call.path, "tries again: {}", failure.reason);
                }
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.once(call).await
    }

    /// `http://h:9200: PUT /orders`, for errors.
    pub(crate) fn named(&self, call: &Call) -> String {
        let path = call.path.split('?').next().unwrap_or_default();
        format!("{}: {} {path}", self.server, call.method)
    }

    async fn once(&self, call: &Call) -> Result<Bytes, Failure> {
        let url = format!("{}{}", self.server.base, call.path);
        let mut request = self.http.request(call.method.clone(), url);
        if !call.body.is_empty() {
            request = request
                .header(CONTENT_TYPE, HeaderValue::from_static(call.content))
                .body(call.body.clone());
        }
        if let Some(user) = &self.server.user {
            let password = self.server.password.as_ref().map(|secret| secret.expose());
            request = request.basic_auth(user, password);
        }
        let mut answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > call.longest {
                let why = format!("the answer is longer than {} bytes", call.longest);
                return Err(Failure::ours(TOO_LONG, why));
            }
            body.extend_from_slice(&chunk);
        }
        match status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => Ok(body.freeze()),
            _ => Err(Failure::answer(status.as_u16(), &body)),
        }
    }
}

/// No answer, or half of one. The URL in the error has no password in it, but says nothing new.
fn lost(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let why = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "the server does not answer in time".to_owned(),
        (_, true) => format!("no connection: {}", deepest(&error)),
        _ => format!("the connection broke: {}", deepest(&error)),
    };
    Failure {
        // One that is silent has been given its time.
        broken: !error.is_timeout(),
        ..Failure::ours(0, why)
    }
}

fn deepest(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn read(file: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|e| Error::io(format!("file {}", file.display()), e))
}

fn unusable(file: &std::path::Path) -> Error {
    invalid(format!(
        "file {} has no certificate that can be used",
        file.display()
    ))
}
