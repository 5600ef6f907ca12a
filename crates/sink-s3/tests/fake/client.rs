//! A client for single signed requests, past the sink: to look at a bucket, and to try what must
//! be refused. Written for tests: it panics where no answer comes.

use std::time::SystemTime;

use backup_core::{Clock, SystemClock};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::sign::{Signed, amz_date, encode, sha256_hex};

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub access: String,
    pub secret: String,
    pub token: Option<String>,
}

/// One request, to be signed and sent.
pub struct Call {
    pub method: &'static str,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Added after signing.
    pub unsigned: HeaderMap,
    pub time: SystemTime,
}

/// `call("PUT /bucket/key?retention&versionId=1")`: the target is not encoded yet.
pub fn call(text: &str) -> Call {
    let (method, target) = text.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter(|pair| !pair.is_empty());
    Call {
        method: ["GET", "HEAD", "PUT", "POST", "DELETE"]
            .into_iter()
            .find(|known| *known == method)
            .unwrap(),
        path: path.to_owned(),
        query: query
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        unsigned: HeaderMap::new(),
        time: SystemClock.now(),
    }
}

impl Call {
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers
            .insert(HeaderName::from_static(name), value.parse().unwrap());
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The text of each such element, as it stands.
    pub fn all(&self, element: &str) -> Vec<String> {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let text = self.text();
        let ends = text.split(&open).skip(1);
        ends.filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned()))
            .collect()
    }

    /// The error code of S3, or nothing.
    pub fn code(&self) -> String {
        self.all("Code").pop().unwrap_or_default()
    }
}

/// Sends signed requests to one server as one user.
#[derive(Clone)]
pub struct Client {
    pub endpoint: String,
    pub keys: Keys,
    pub region: String,
}

impl Client {
    pub fn new(endpoint: &str, access: &str, secret: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            keys: Keys {
                access: access.to_owned(),
                secret: secret.to_owned(),
                token: None,
            },
            region: "us-east-1".to_owned(),
        }
    }

    pub async fn send(&self, call: Call) -> Answer {
        let host = self.endpoint.strip_prefix("http://").unwrap();
        let date = amz_date(call.time);
        let payload = sha256_hex(&call.body);
        let mut headers = call.headers;
        let mut own = vec![
            ("host", host),
            ("x-amz-date", &date),
            ("x-amz-content-sha256", &payload),
        ];
        own.extend(
            self.keys
                .token
                .as_deref()
                .map(|token| ("x-amz-security-token", token)),
        );
        for (name, value) in own {
            headers
                .entry(name)
                .or_insert(HeaderValue::from_str(value).unwrap());
        }
        let mut names: Vec<String> = headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        let signature = Signed {
            method: call.method,
            path: &call.path,
            query: &call.query,
            headers: &headers,
            signed_headers: &names,
            payload: headers["x-amz-content-sha256"].to_str().unwrap(),
            date: headers["x-amz-date"].to_str().unwrap(),
            region: &self.region,
        }
        .signature(&self.keys.secret);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}/{}/s3/aws4_request, SignedHeaders={}, Signature={signature}",
            self.keys.access,
            &date[..8],
            self.region,
            names.join(";"),
        );
        let query: Vec<String> = call
            .query
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false)))
            .collect();
        let target = format!("{}?{}", encode(&call.path, true), query.join("&"));
        let mut request = Request::builder()
            .method(call.method)
            .uri(target.trim_end_matches('?'))
            .header("authorization", authorization)
            .header("content-length", call.body.len())
            .body(Full::new(call.body))
            .unwrap();
        request.headers_mut().extend(headers);
        request.headers_mut().extend(call.unsigned);

        let stream = TcpStream::connect(host).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }
}
