//! What AWS checks of every request before it looks at the bucket, in this order.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::client::Keys;
use super::sign::{Signed, parse_amz_date, sha256_hex};
use super::sums;
use super::wire::{Op, Request, Result, refusal, refusal_with};

/// What a rule may look at.
pub struct Case<'a> {
    pub request: &'a Request,
    pub keys: &'a Keys,
    pub expired: bool,
    pub region: &'a str,
    pub now: SystemTime,
}

/// A rule, and where it is written down.
pub struct Rule {
    pub name: &'static str,
    pub source: &'static str,
    pub check: fn(&Case<'_>) -> Result<()>,
}

const SIGNING: &str = "S3 API reference: sig-v4-header-based-auth";
const ERRORS: &str = "S3 API reference: Error Responses";
const INTEGRITY: &str = "S3 user guide: checking object integrity";

pub const RULES: &[Rule] = &[
    Rule {
        name: "a length is given",
        source: ERRORS,
        check: has_length,
    },
    Rule {
        name: "a signature is there and well formed",
        source: SIGNING,
        check: |case| Authorization::of(case).map(|_| ()),
    },
    Rule {
        name: "the key is known and its token is the one and alive",
        source: ERRORS,
        check: known_keys,
    },
    Rule {
        name: "the region is the bucket's",
        source: "S3 user guide: Making requests; the error names the right one",
        check: right_region,
    },
    Rule {
        name: "the clocks agree within 15 minutes",
        source: "S3 API reference: Error Responses, RequestTimeTooSkewed",
        check: agreeing_clocks,
    },
    Rule {
        name: "host and every x-amz-* header are signed",
        source: "sig-v4-header-based-auth; the answer is in arrow-rs-object-store#484",
        check: all_signed,
    },
    Rule {
        name: "the signature is right",
        source: SIGNING,
        check: right_signature,
    },
    Rule {
        name: "the body has the hash that was signed",
        source: SIGNING,
        check: signed_body,
    },
    Rule {
        name: "Content-MD5 and the checksum fit the body",
        source: INTEGRITY,
        check: right_sums,
    },
    Rule {
        name: "a body that configures or deletes has a checksum",
        source: "S3 API reference: DeleteObjects, PutObjectRetention, PutObjectLegalHold",
        check: configures_with_sum,
    },
    Rule {
        name: "a key has 1024 bytes at most",
        source: "S3 user guide: Naming Amazon S3 objects",
        check: |case| match case.request.key.len() {
            0..=1024 => Ok(()),
            _ => Err(refusal(400, "KeyTooLongError", "Your key is too long")),
        },
    },
    Rule {
        name: "a part is not encrypted by itself",
        source: "S3 API reference: UploadPart (SSE-S3 and KMS headers belong to CreateMultipartUpload)",
        check: |case| match case.request.op {
            Op::UploadPart | Op::CompleteMultipartUpload
                if case
                    .request
                    .header("x-amz-server-side-encryption")
                    .is_some() =>
            {
                let message =
                    "x-amz-server-side-encryption header is not supported for this operation.";
                Err(refusal(400, "InvalidArgument", message))
            }
            _ => Ok(()),
        },
    },
];

fn has_length(case: &Case<'_>) -> Result<()> {
    let bodied = matches!(case.request.method.as_str(), "PUT");
    if bodied && case.request.header("content-length").is_none() {
        let message = "You must provide the Content-Length HTTP header.";
        return Err(refusal(411, "MissingContentLength", message));
    }
    Ok(())
}

struct Authorization {
    access: String,
    day: String,
    region: String,
    signed: Vec<String>,
    signature: String,
}

impl Authorization {
    fn of(case: &Case<'_>) -> Result<Self> {
        let Some(header) = case.request.header("authorization") else {
            return Err(refusal(403, "AccessDenied", "Access Denied"));
        };
        Self::parse(header).ok_or_else(|| {
            let message = "The authorization header is malformed";
            refusal(400, "AuthorizationHeaderMalformed", message)
        })
    }

    fn parse(header: &str) -> Option<Self> {
        let rest = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let field = |name: &str| {
            rest.split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let credential: Vec<&str> = field("Credential")?.split('/').collect();
        let [access, day, region, "s3", "aws4_request"] = credential[..] else {
            return None;
        };
        Some(Self {
            access: access.to_owned(),
            day: day.to_owned(),
            region: region.to_owned(),
            signed: field("SignedHeaders")?
                .split(';')
                .map(str::to_owned)
                .collect(),
            signature: field("Signature")?.to_owned(),
        })
    }
}

fn known_keys(case: &Case<'_>) -> Result<()> {
    if Authorization::of(case)?.access != case.keys.access {
        let message = "The AWS Access Key Id you provided does not exist in our records.";
        return Err(refusal(403, "InvalidAccessKeyId", message));
    }
    if case.request.header("x-amz-security-token") != case.keys.token.as_deref() {
        let message = "The provided token is malformed or otherwise invalid.";
        return Err(refusal(400, "InvalidToken", message));
    }
    if case.expired {
        let message = "The provided token has expired.";
        return Err(refusal(400, "ExpiredToken", message));
    }
    Ok(())
}

fn right_region(case: &Case<'_>) -> Result<()> {
    let region = Authorization::of(case)?.region;
    if region == case.region {
        return Ok(());
    }
    Err(refusal_with(
        400,
        "AuthorizationHeaderMalformed",
        &format!(
            "The authorization header is malformed; the region '{region}' is wrong; expecting '{}'",
            case.region
        ),
        &format!("<Region>{}</Region>", case.region),
    ))
}

fn agreeing_clocks(case: &Case<'_>) -> Result<()> {
    let date = case.request.header("x-amz-date").and_then(parse_amz_date);
    let Some(date) = date else {
        let message = "AWS authentication requires a valid Date or x-amz-date header";
        return Err(refusal(403, "AccessDenied", message));
    };
    let skew = case
        .now
        .duration_since(date)
        .unwrap_or_else(|ahead| ahead.duration());
    if skew > Duration::from_secs(15 * 60) {
        let message = "The difference between the request time and the current time is too large.";
        return Err(refusal_with(
            403,
            "RequestTimeTooSkewed",
            message,
            "<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>",
        ));
    }
    Ok(())
}

fn all_signed(case: &Case<'_>) -> Result<()> {
    let signed = Authorization::of(case)?.signed;
    let missing: Vec<&str> = case
        .request
        .headers
        .keys()
        .map(|name| name.as_str())
        .filter(|name| *name == "host" || name.starts_with("x-amz-"))
        .filter(|name| !signed.iter().any(|known| known == name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(refusal_with(
        403,
        "AccessDenied",
        "There were headers present in the request which were not signed",
        &format!(
            "<HeadersNotSigned>{}</HeadersNotSigned>",
            missing.join(", ")
        ),
    ))
}

fn right_signature(case: &Case<'_>) -> Result<()> {
    let said = Authorization::of(case)?;
    let request = case.request;
    let date = request.header("x-amz-date").unwrap_or_default();
    let Some(payload) = request.header("x-amz-content-sha256") else {
        let message = "Missing required header for this request: x-amz-content-sha256";
        return Err(refusal(400, "InvalidRequest", message));
    };
    let ours = Signed {
        method: &request.method,
        path: &request.path,
        query: &request.query,
        headers: &request.headers,
        signed_headers: &said.signed,
        payload,
        date,
        region: case.region,
    }
    .signature(&case.keys.secret);
    if !date.starts_with(&said.day) || ours != said.signature {
        let message = "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
        return Err(refusal(403, "SignatureDoesNotMatch", message));
    }
    Ok(())
}

fn signed_body(case: &Case<'_>) -> Result<()> {
    match case
        .request
        .header("x-amz-content-sha256")
        .unwrap_or_default()
    {
        "UNSIGNED-PAYLOAD" => Ok(()),
        streaming if streaming.starts_with("STREAMING-") => Err(refusal(
            501,
            "NotImplemented",
            "chunked signing is not in this fake",
        )),
        hash if hash == sha256_hex(&case.request.body) => Ok(()),
        _ => {
            let message =
                "The provided 'x-amz-content-sha256' header does not match what was computed.";
            Err(refusal(400, "XAmzContentSHA256Mismatch", message))
        }
    }
}

fn right_sums(case: &Case<'_>) -> Result<()> {
    if let Some(md5) = case.request.header("content-md5") {
        match STANDARD.decode(md5) {
            Ok(bytes) if bytes.len() == 16 => {
                if bytes != sums::md5(&case.request.body) {
                    let message = "The Content-MD5 you specified did not match what we received.";
                    return Err(refusal(400, "BadDigest", message));
                }
            }
            _ => {
                let message = "The Content-MD5 you specified is not valid.";
                return Err(refusal(400, "InvalidDigest", message));
            }
        }
    }
    // On CompleteMultipartUpload that header is the object's checksum, not the body's.
    if case.request.op != Op::CompleteMultipartUpload {
        sums::brought(case.request)?;
    }
    Ok(())
}

/// `Content-MD5` or a checksum.
pub fn has_sum(request: &Request) -> Result<bool> {
    Ok(request.headers.contains_key("content-md5") || sums::brought(request)?.is_some())
}

fn configures_with_sum(case: &Case<'_>) -> Result<()> {
    let needs = matches!(
        case.request.op,
        Op::DeleteObjects | Op::PutObjectRetention | Op::PutObjectLegalHold
    );
    if needs && !has_sum(case.request)? {
        let message = "Missing required header for this request: Content-MD5 OR x-amz-checksum-*";
        return Err(refusal(400, "InvalidRequest", message));
    }
    Ok(())
}
