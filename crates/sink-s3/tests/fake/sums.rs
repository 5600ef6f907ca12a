//! Checksums of bodies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest, Sha256};

use super::wire::{Request, Result, refusal};

/// The algorithms that this server knows, by the ends of their headers.
pub const ALGORITHMS: [&str; 2] = ["sha256", "crc64nvme"];

pub fn md5(bytes: &[u8]) -> Vec<u8> {
    Md5::digest(bytes).to_vec()
}

pub fn sum(algorithm: &str, bytes: &[u8]) -> String {
    match algorithm {
        "sha256" => STANDARD.encode(Sha256::digest(bytes)),
        _ => STANDARD.encode(crc64nvme(bytes).to_be_bytes()),
    }
}

/// The sum of sums that a multipart upload with a composite checksum has.
pub fn composite(algorithm: &str, parts: &[String]) -> String {
    let all: Vec<u8> = parts
        .iter()
        .flat_map(|part| STANDARD.decode(part).unwrap())
        .collect();
    format!("{}-{}", sum(algorithm, &all), parts.len())
}

fn crc64nvme(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

/// The checksum that a request brings, compared with its body.
pub fn brought(request: &Request) -> Result<Option<(String, String)>> {
    let mut found = None;
    for (name, value) in &request.headers {
        let Some(algorithm) = name.as_str().strip_prefix("x-amz-checksum-") else {
            continue;
        };
        if ["algorithm", "mode", "type"].contains(&algorithm) {
            continue;
        }
        if !ALGORITHMS.contains(&algorithm) {
            return Err(refusal(501, "NotImplemented", algorithm));
        }
        let value = value.to_str().unwrap_or_default();
        if value != sum(algorithm, &request.body) {
            let message = format!(
                "The {} you specified did not match the calculated checksum.",
                algorithm.to_uppercase()
            );
            return Err(refusal(400, "BadDigest", &message));
        }
        if found.is_some() {
            let message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
            return Err(refusal(400, "InvalidRequest", message));
        }
        found = Some((algorithm.to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[test]
fn the_check_value_of_crc64nvme() {
    assert_eq!(crc64nvme(b"123456789"), 0xae8b_1486_0a79_9888);
}
