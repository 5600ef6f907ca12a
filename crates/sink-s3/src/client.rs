//! Signed requests. Everything that this crate sends goes through here.
//!
//! `object_store` lends the chain of credentials, the signature (`AwsAuthorizer`) and the HTTP
//! client; its own requests know neither Object Lock nor versions. Each attempt is signed anew, so
//! that a retry after a pause is not refused for its age.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use object_store::PutPayload;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse};
use serde::de::DeserializeOwned;

use crate::Checksum;
use crate::failure::Failure;
use crate::part::Part;

/// The longest answer that is read whole: a page of a thousand keys is under 2 MiB.
const LONGEST: usize = 16 << 20;
/// How long a server may be silent.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// A body may take so much longer: 64 KiB/s are enough.
const SLOWEST: u64 = 64 * 1024;
/// AWS puts the parts together while the answer is on its way, for some minutes.
const COMPLETION: Duration = Duration::from_secs(15 * 60);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Sends requests to one bucket.
pub(crate) struct Client {
    pub(crate) http: HttpClient,
    pub(crate) credentials: AwsCredentialProvider,
    pub(crate) region: String,
    /// Of the bucket, without a slash at its end.
    pub(crate) base: String,
    pub(crate) retries: u32,
}

/// What is asked of the server.
#[derive(Clone)]
pub(crate) struct Request {
    action: &'static str,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Body,
    patience: Duration,
}

#[derive(Clone, Default)]
struct Body {
    payload: PutPayload,
    len: u64,
    sha256: Option<[u8; 32]>,
}

impl Request {
    /// A request about the bucket. `action` is the right that it needs.
    pub(crate) fn bucket(action: &'static str, method: Method) -> Self {
        Self {
            action,
            method,
            path: String::new(),
            headers: HeaderMap::new(),
            body: Body::default(),
            patience: SILENCE,
        }
    }

    /// A request about the object `key` of the bucket.
    pub(crate) fn object(action: &'static str, method: Method, key: &str) -> Self {
        let mut request = Self::bucket(action, method);
        request.path.push('/');
        encode(key, true, &mut request.path);
        request
    }

    /// One more field of the query.
    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let first = !self.path.contains('?');
        self.path.push(if first { '?' } else { '&' });
        encode(name, false, &mut self.path);
        self.path.push('=');
        encode(value.as_ref(), false, &mut self.path);
        self
    }

    pub(crate) fn version(self, version: Option<&str>) -> Self {
        match version {
            Some(version) => self.query("versionId", version),
            None => self,
        }
    }

    /// Values come from checked options or from the server: one that is no header is left out by
    /// nobody, it is an error of the signature.
    pub(crate) fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        let value = HeaderValue::from_str(value.as_ref());
        self.headers.insert(
            HeaderName::from_static(name),
            value.unwrap_or(HeaderValue::from_static("not-a-header")),
        );
        self
    }

    pub(crate) fn headers(self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let add = |request: Self, (name, value)| request.header(name, value);
        headers.into_iter().fold(self, add)
    }

    /// The bytes of a part of an object.
    pub(crate) fn part(mut self, part: &Part) -> Self {
        self.body = Body {
            payload: part.chunks.iter().cloned().collect(),
            len: part.len as u64,
            sha256: Some(part.sha256()),
        };
        self
    }

    /// A small document.
    pub(crate) fn document(self, text: String) -> Self {
        let mut part = Part::default();
        part.push(text.into());
        self.part(&part)
    }

    /// A small document that changes a setting: those need a checksum.
    pub(crate) fn setting(self, text: String) -> Self {
        let mut part = Part::default();
        part.push(text.into());
        let checksum = part.checksum(Checksum::Sha256);
        self.header(Checksum::Sha256.header(), checksum).part(&part)
    }

    /// The server may think about this one.
    pub(crate) fn patiently(mut self) -> Self {
        self.patience = COMPLETION;
        self
    }
}

impl Client {
    /// Sends until the server answers with success, or fails for good. The body is not read yet.
    pub(crate) async fn send(&self, request: &Request) -> Result<HttpResponse, Failure> {
        let mut retries = Retries::new(self.retries);
        loop {
            match self.once(request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => retries.wait(failure).await?,
            }
        }
    }

    /// Sends, and reads the answer whole.
    pub(crate) async fn fetch(&self, request: &Request) -> Result<(HeaderMap, Bytes), Failure> {
        let mut retries = Retries::new(self.retries);
        loop {
            match self.fetch_once(request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => retries.wait(failure).await?,
            }
        }
    }

    /// Sends and reads like [`fetch`](Self::fetch), once: for what is expected to fail.
    pub(crate) async fn fetch_once(
        &self,
        request: &Request,
    ) -> Result<(HeaderMap, Bytes), Failure> {
        let (head, body) = self.once(request).await?.into_parts();
        let body = read(request, body.bytes_stream()).await?;
        // S3 may begin its answer before it knows how it ends.
        let begin = String::from_utf8_lossy(&body[..body.len().min(1_000)]);
        if begin.contains("<Error>") {
            return Err(Failure {
                unsure: true,
                ..Failure::answer(request.action, head.status, &body)
            });
        }
        Ok((head.headers, body))
    }

    /// Sends, and reads the answer as the document that it is.
    pub(crate) async fn document<T: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<T, Failure> {
        let (_, body) = self.fetch(request).await?;
        let text = String::from_utf8_lossy(&body);
        quick_xml::de::from_str(&text).map_err(|error| {
            let why = format!("the answer cannot be read: {error}");
            Failure::nonsense(request.action, why)
        })
    }

    async fn once(&self, request: &Request) -> Result<HttpResponse, Failure> {
        let action = request.action;
        let signed = self.signed(request).await?;
        let limit = request.patience + Duration::from_secs(request.body.len / SLOWEST);
        let answer = match tokio::time::timeout(limit, self.http.execute(signed)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Failure::transport(action, error)),
            Err(_) => {
                let why = format!("no answer within {} seconds", limit.as_secs());
                return Err(Failure::no_answer(action, why));
            }
        };
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        // The status says enough where the rest is lost.
        let body = read(request, body.bytes_stream()).await.unwrap_or_default();
        let mut failure = Failure::answer(action, head.status, &body);
        if let Some(region) = head.headers.get("x-amz-bucket-region") {
            failure.region = region.to_str().ok().map(str::to_owned);
        }
        // A delete marker is no object, by whatever version it is asked for.
        if head.headers.contains_key("x-amz-delete-marker") {
            failure.code = "NoSuchKey".to_owned();
        }
        Err(failure)
    }

    async fn signed(&self, request: &Request) -> Result<HttpRequest, Failure> {
        let action = request.action;
        let cannot = |why: String| Failure {
            code: "NoCredentials".to_owned(),
            status: Some(StatusCode::UNAUTHORIZED),
            unsure: false,
            ..Failure::no_answer(action, why)
        };
        let credential = self.credentials.get_credential().await;
        let credential = credential.map_err(|error| cannot(error.to_string()))?;
        let body = match request.body.len {
            0 => HttpRequestBody::empty(),
            _ => HttpRequestBody::from(request.body.payload.clone()),
        };
        let mut signed = http::Request::new(body);
        *signed.method_mut() = request.method.clone();
        *signed.uri_mut() = format!("{}{}", self.base, request.path)
            .parse()
            .map_err(|error| Failure::nonsense(action, format!("{error}")))?;
        *signed.headers_mut() = request.headers.clone();
        if request.method == Method::PUT || request.method == Method::POST {
            let len = HeaderValue::from(request.body.len);
            signed.headers_mut().insert(CONTENT_LENGTH, len);
        }
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut signed, request.body.sha256.as_ref().map(|s| &s[..]))
            .map_err(|error| cannot(error.to_string()))?;
        Ok(signed)
    }
}

/// How often a request is repeated, and what is known of it by then.
struct Retries {
    left: u32,
    pause: Duration,
    unsure: bool,
}

impl Retries {
    fn new(left: u32) -> Self {
        Self {
            left,
            pause: FIRST_PAUSE,
            unsure: false,
        }
    }

    /// Waits for the next attempt, or says that there is none.
    async fn wait(&mut self, mut failure: Failure) -> Result<(), Failure> {
        self.unsure |= failure.unsure;
        failure.unsure = self.unsure;
        if self.left == 0 || !failure.is_transient() {
            return Err(failure);
        }
        tracing::debug!(action = failure.action, code = failure.code, "tries again");
        tokio::time::sleep(jitter(self.pause)).await;
        self.left -= 1;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// An answer whole, and not longer than one may be.
async fn read(
    request: &Request,
    mut body: impl futures::Stream<Item = Result<Bytes, object_store::client::HttpError>> + Unpin,
) -> Result<Bytes, Failure> {
    let mut all = BytesMut::new();
    loop {
        match tokio::time::timeout(request.patience, body.next()).await {
            Ok(Some(Ok(chunk))) if all.len() + chunk.len() <= LONGEST => {
                all.extend_from_slice(&chunk);
            }
            Ok(Some(Ok(_))) => {
                return Err(Failure::nonsense(request.action, "the answer has no end"));
            }
            Ok(Some(Err(error))) => return Err(Failure::transport(request.action, error)),
            Ok(None) => return Ok(all.freeze()),
            Err(_) => return Err(Failure::no_answer(request.action, "half an answer")),
        }
    }
}

/// Between half of `pause` and all of it, so that many clients do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// Percent-encodes as "UriEncode" of the Signature Version 4 documentation says.
fn encode(text: &str, slashes: bool, into: &mut String) {
    use fmt::Write;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                into.push(byte.into());
            }
            b'/' if slashes => into.push('/'),
            _ => {
                let _ = write!(into, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_keys_are_encoded() {
        let request = Request::object("s3:GetObject", Method::GET, "a/b+c")
            .query("prefix", "x/y z")
            .version(Some("v=1"));
        assert_eq!(request.path, "/a/b%2Bc?prefix=x%2Fy%20z&versionId=v%3D1");
    }
}
