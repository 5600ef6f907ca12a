//! Requests and answers as S3 has them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

/// What a request asks for, by the name in the API reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CreateMultipartUpload,
    DeleteObject,
    DeleteObjects,
    GetBucketLifecycleConfiguration,
    GetBucketLocation,
    GetBucketVersioning,
    GetObject,
    GetObjectLegalHold,
    GetObjectLockConfiguration,
    GetObjectRetention,
    HeadBucket,
    HeadObject,
    ListMultipartUploads,
    ListObjectVersions,
    ListObjectsV2,
    ListParts,
    PutObject,
    PutObjectLegalHold,
    PutObjectRetention,
    UploadPart,
}

/// Method, whether a key follows the bucket, and the parameter that makes the difference: the
/// first that fits. Source: the "Request Syntax" of each page of the S3 API reference.
const OPERATIONS: &[(&str, bool, &str, Op)] = &[
    ("GET", false, "versioning", Op::GetBucketVersioning),
    ("GET", false, "object-lock", Op::GetObjectLockConfiguration),
    (
        "GET",
        false,
        "lifecycle",
        Op::GetBucketLifecycleConfiguration,
    ),
    ("GET", false, "location", Op::GetBucketLocation),
    ("GET", false, "versions", Op::ListObjectVersions),
    ("GET", false, "uploads", Op::ListMultipartUploads),
    ("GET", false, "list-type", Op::ListObjectsV2),
    ("HEAD", false, "", Op::HeadBucket),
    ("POST", false, "delete", Op::DeleteObjects),
    ("GET", true, "retention", Op::GetObjectRetention),
    ("GET", true, "legal-hold", Op::GetObjectLegalHold),
    ("GET", true, "uploadId", Op::ListParts),
    ("GET", true, "", Op::GetObject),
    ("HEAD", true, "", Op::HeadObject),
    ("PUT", true, "retention", Op::PutObjectRetention),
    ("PUT", true, "legal-hold", Op::PutObjectLegalHold),
    ("PUT", true, "uploadId", Op::UploadPart),
    ("PUT", true, "", Op::PutObject),
    ("POST", true, "uploads", Op::CreateMultipartUpload),
    ("POST", true, "uploadId", Op::CompleteMultipartUpload),
    ("DELETE", true, "uploadId", Op::AbortMultipartUpload),
    ("DELETE", true, "", Op::DeleteObject),
];

/// A request, decoded.
pub struct Request {
    pub op: Op,
    pub method: String,
    pub path: String,
    pub bucket: String,
    pub key: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    pub fn new(
        method: String,
        path: String,
        query: Vec<(String, String)>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Self> {
        let (bucket, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        let op = OPERATIONS
            .iter()
            .find(|(verb, object, parameter, _)| {
                *verb == method
                    && *object != key.is_empty()
                    && (parameter.is_empty() || query.iter().any(|(name, _)| name == parameter))
            })
            .map(|(.., op)| *op);
        let not_here = || refusal(501, "NotImplemented", "not in this fake");
        Ok(Self {
            op: op.ok_or_else(not_here)?,
            method,
            path,
            bucket,
            key,
            query,
            headers,
            body,
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// What `Content-Length` says where there is no body to count (HEAD).
    pub length: Option<usize>,
}

pub type Result<T = Reply> = std::result::Result<T, Reply>;

pub fn reply(status: u16) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        body: Bytes::new(),
        length: None,
    }
}

impl Reply {
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn xml(self, text: String) -> Self {
        let mut this = self.header("content-type", "application/xml");
        this.body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{text}").into();
        this
    }

    pub fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }
}

/// The error document of S3 ("Error Responses" in the API reference).
pub fn refusal(status: u16, code: &str, message: &str) -> Reply {
    refusal_with(status, code, message, "")
}

pub fn refusal_with(status: u16, code: &str, message: &str, more: &str) -> Reply {
    reply(status).header("x-amz-request-id", "FAKE").xml(format!(
        "<Error><Code>{code}</Code><Message>{}</Message>{more}<RequestId>FAKE</RequestId></Error>",
        escape(message)
    ))
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

pub fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

/// The text of each such element.
pub fn elements(text: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    text.split(&open)
        .skip(1)
        .filter_map(|rest| Some(unescape(rest.split_once(&close)?.0)))
        .collect()
}

pub fn element(text: &str, name: &str) -> Option<String> {
    elements(text, name).into_iter().next()
}
