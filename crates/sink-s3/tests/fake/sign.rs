//! AWS Signature Version 4, for both ends: the client signs with it, the server verifies.
//!
//! Source: "Signature Calculations for the Authorization Header: Transferring Payload in a Single
//! Chunk" (Amazon S3 API reference, sig-v4-header-based-auth). Its worked example is the test.

use std::time::SystemTime;

use http::HeaderMap;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

/// The time as `x-amz-date` has it.
pub fn amz_date(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.to_zoned(TimeZone::UTC)
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string()
}

/// What `x-amz-date` says.
pub fn parse_amz_date(text: &str) -> Option<SystemTime> {
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().into())
}

/// What is signed, in one piece.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    pub method: &'a str,
    /// Decoded.
    pub path: &'a str,
    /// Decoded, in any order.
    pub query: &'a [(String, String)],
    pub headers: &'a HeaderMap,
    /// Lower case, sorted.
    pub signed_headers: &'a [String],
    /// The value of `x-amz-content-sha256`.
    pub payload: &'a str,
    /// The value of `x-amz-date`.
    pub date: &'a str,
    pub region: &'a str,
}

impl Signed<'_> {
    /// The signature, in hexadecimal digits.
    pub fn signature(self, secret: &str) -> String {
        let day = &self.date[..8];
        let key = [day, self.region, "s3", "aws4_request"]
            .iter()
            .fold(format!("AWS4{secret}").into_bytes(), |key, part| {
                hmac(&key, part.as_bytes()).to_vec()
            });
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{day}/{}/s3/aws4_request\n{}",
            self.date,
            self.region,
            hex(&Sha256::digest(self.canonical())),
        );
        hex(&hmac(&key, to_sign.as_bytes()))
    }

    fn canonical(self) -> String {
        let mut query: Vec<(String, String)> = self
            .query
            .iter()
            .map(|(name, value)| (encode(name, false), encode(value, false)))
            .collect();
        query.sort();
        let query: Vec<String> = query.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let mut headers = String::new();
        for name in self.signed_headers {
            let values: Vec<String> = self
                .headers
                .get_all(name)
                .iter()
                .map(|value| {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    value.split_whitespace().collect::<Vec<_>>().join(" ")
                })
                .collect();
            headers += &format!("{name}:{}\n", values.join(","));
        }
        format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            self.method,
            encode(self.path, true),
            query.join("&"),
            self.signed_headers.join(";"),
            self.payload,
        )
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message);
    let outer = Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner.finalize());
    outer.finalize().into()
}

/// Everything but letters, digits and `-_.~` (and, where asked, `/`) as `%XX`.
pub fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if keep_slash => out.push('/'),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

pub fn decode(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            out.push(*first);
        }
    }
    String::from_utf8(out).ok()
}

pub fn parse_query(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

#[test]
fn it_signs_as_the_documentation_does() {
    // "Example: PUT Object" of the page named above.
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("host", "examplebucket.s3.amazonaws.com"),
        (
            "x-amz-content-sha256",
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        ),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let mut signed_headers: Vec<String> = headers.keys().map(|n| n.as_str().to_owned()).collect();
    signed_headers.sort();
    let signed = Signed {
        method: "PUT",
        path: "/test$file.text",
        query: &[],
        headers: &headers,
        signed_headers: &signed_headers,
        payload: &sha256_hex(b"Welcome to Amazon S3."),
        date: "20130524T000000Z",
        region: "us-east-1",
    };
    assert_eq!(
        signed.signature("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    );
}
