//! What a server says when it says no.

use std::error::Error as StdError;
use std::fmt::Display;
use std::{io, iter};

use backup_core::{Error, ErrorKind};
use http::StatusCode;
use object_store::client::HttpError;
use rustls::CertificateError;
use serde::Deserialize;

/// The longest text of a server that goes into a message.
const LONGEST: usize = 300;

/// A request that failed for good.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// The right that it needed: `s3:PutObject`.
    pub(crate) action: &'static str,
    /// `None`: no answer came.
    pub(crate) status: Option<StatusCode>,
    pub(crate) code: String,
    pub(crate) message: String,
    /// Where the bucket is, if the server told.
    pub(crate) region: Option<String>,
    /// An attempt got no answer or a server's error: it may have been carried out all the same.
    pub(crate) unsure: bool,
    pub(crate) cause: Option<HttpError>,
}

/// `<Error>`, as in "Error responses" of the Amazon S3 API Reference.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ErrorAnswer {
    code: String,
    message: String,
    region: Option<String>,
}

impl Failure {
    pub(crate) fn answer(action: &'static str, status: StatusCode, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let answer: ErrorAnswer = quick_xml::de::from_str(&text).unwrap_or_default();
        Self {
            action,
            status: Some(status),
            code: answer.code,
            message: answer.message.chars().take(LONGEST).collect(),
            region: answer.region,
            unsure: status.is_server_error(),
            cause: None,
        }
    }

    pub(crate) fn no_answer(action: &'static str, why: impl Into<String>) -> Self {
        Self {
            action,
            message: why.into(),
            unsure: true,
            ..Self::default()
        }
    }

    pub(crate) fn transport(action: &'static str, cause: HttpError) -> Self {
        let failure = match certificate(&cause) {
            // Nothing was sent, and nothing will be.
            Some(why) => Self {
                code: "Certificate".to_owned(),
                unsure: false,
                ..Self::no_answer(action, distrust(why))
            },
            None => Self::no_answer(action, "no answer"),
        };
        Self {
            cause: Some(cause),
            ..failure
        }
    }

    /// An answer that makes no sense.
    pub(crate) fn nonsense(action: &'static str, why: impl Into<String>) -> Self {
        Self {
            action,
            status: Some(StatusCode::OK),
            code: "Nonsense".to_owned(),
            message: why.into(),
            ..Self::default()
        }
    }

    pub(crate) fn is(&self, status: StatusCode) -> bool {
        self.status == Some(status)
    }

    /// Whether the same request may succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self.status {
            None => self.code.is_empty(),
            Some(status) => {
                matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
                    || self.is_conflict()
                    || matches!(
                        self.code.as_str(),
                        "SlowDown" | "InternalError" | "RequestTimeout" | "ServiceUnavailable"
                    )
            }
        }
    }

    /// Another request on the same key was in the way ("Conditional writes" of the S3 User Guide).
    pub(crate) fn is_conflict(&self) -> bool {
        self.is(StatusCode::CONFLICT)
            && matches!(
                self.code.as_str(),
                "ConditionalRequestConflict" | "OperationAborted"
            )
    }

    /// The key is taken, or about to be.
    pub(crate) fn is_taken(&self) -> bool {
        self.is(StatusCode::PRECONDITION_FAILED) || self.is_conflict()
    }

    /// There is no such object, version or upload. A 404 may say other things: that there is no
    /// such bucket, or, by versitygw, no such access key.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(
            self.code.as_str(),
            "NoSuchKey" | "NoSuchVersion" | "NoSuchUpload"
        )
    }

    fn explain(&self) -> (ErrorKind, String) {
        let action = self.action;
        let said = match (self.code.as_str(), self.message.as_str()) {
            ("", "") => String::new(),
            ("", text) | (text, "") => format!(" ({text})"),
            (code, text) => format!(" ({code}: {text})"),
        };
        let Some(status) = self.status else {
            let kind = match self.code.as_str() {
                "" => ErrorKind::Unavailable,
                _ => ErrorKind::Invalid,
            };
            return (kind, self.message.clone());
        };
        if let Some(region) = &self.region
            && (status.is_redirection() || self.code == "AuthorizationHeaderMalformed")
        {
            let text = format!("the bucket is in another region: set region = \"{region}\"");
            return (ErrorKind::Invalid, text);
        }
        match self.code.as_str() {
            "RequestTimeTooSkewed" => (
                ErrorKind::Invalid,
                format!("this machine's clock and the server's are too far apart: set it{said}"),
            ),
            "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" => (
                ErrorKind::Denied,
                format!("the session token has expired or is not valid: renew it{said}"),
            ),
            "InvalidAccessKeyId" | "XAdminUserNotFound" => (
                ErrorKind::Denied,
                format!("the server does not know this access key{said}"),
            ),
            "SignatureDoesNotMatch" => (
                ErrorKind::Denied,
                format!("the secret key does not belong to this access key{said}"),
            ),
            "NoSuchBucket" => (ErrorKind::Invalid, "there is no such bucket".to_owned()),
            "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "BadDigest" => (
                ErrorKind::Corrupt,
                format!("the bytes changed on their way to the server{said}"),
            ),
            "NotImplemented" => (
                ErrorKind::Unsupported,
                format!("the server cannot do {action}{said}"),
            ),
            "KMS.NotFoundException" | "kms:KeyNotFound" => (
                ErrorKind::Invalid,
                format!("sse.kms names a key that the server has not{said}"),
            ),
            "InvalidStorageClass" => (
                ErrorKind::Invalid,
                format!("storage_class names one that the server has not{said}"),
            ),
            // MinIO, AWS and versitygw to a lock on a bucket that has none.
            "InvalidRequest" | "InvalidBucketObjectLockConfiguration"
                if self.message.contains("ObjectLockConfiguration")
                    || self.message.contains("Object Lock") =>
            {
                (
                    ErrorKind::Unsupported,
                    format!("the bucket was not made with Object Lock{said}"),
                )
            }
            _ if self.is_missing() => (ErrorKind::NotFound, format!("there is none{said}")),
            _ if self.is_taken() => (ErrorKind::AlreadyExists, format!("it exists{said}")),
            _ if self.is_transient() => (
                ErrorKind::Unavailable,
                format!(
                    "the server answered {} again and again{said}",
                    status.as_u16()
                ),
            ),
            _ if status.is_redirection() => (
                ErrorKind::Invalid,
                format!("the server sends us elsewhere: set endpoint and region{said}"),
            ),
            _ if matches!(status.as_u16(), 401 | 403) => (
                ErrorKind::Denied,
                format!("the credentials may not {action}{said}"),
            ),
            _ => (
                ErrorKind::Sink,
                format!("{action} was answered with {}{said}", status.as_u16()),
            ),
        }
    }

    /// As an error of `sink` while it did `what`.
    pub(crate) fn into_error(self, what: impl Display, sink: impl Display) -> Error {
        let (kind, text) = self.explain();
        let mut error = Error::new(kind, text);
        if let Some(cause) = self.cause {
            error = error.with_source(cause);
        }
        error.context(format!("{what} in {sink}"))
    }
}

/// What is wrong with the server's certificate, if that is what is wrong.
fn certificate(error: &HttpError) -> Option<&CertificateError> {
    let mut causes = iter::successors(Some(error as &(dyn StdError + 'static)), |&error| {
        // The cause of an `io::Error` is what is in it, and it does not say so.
        match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    });
    causes.find_map(|error| match error.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(why)) => Some(why),
        _ => None,
    })
}

fn distrust(why: &CertificateError) -> String {
    let advice = match why {
        CertificateError::UnknownIssuer => {
            "nobody whom this machine trusts has issued it: if it is right, name the file of its \
             authority as ca_file"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name than the endpoint has"
        }
        _ => "it cannot be trusted",
    };
    format!("the server's certificate is refused: {advice}")
}
