//! Multipart uploads.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use super::rules::has_sum;
use super::sign::hex;
use super::store::{Bucket, Dress, Version, rfc3339};
use super::sums::{self, ALGORITHMS};
use super::wire::{Request, Result, element, elements, escape, refusal, reply};

/// The least that a part has, but for the last (S3 user guide: multipart upload limits).
pub const MIN_PART: usize = 5 << 20;

pub struct Upload {
    pub key: String,
    started: SystemTime,
    dress: Dress,
    algorithm: Option<String>,
    parts: BTreeMap<u32, Part>,
}

struct Part {
    data: Bytes,
    etag: String,
    sum: Option<String>,
}

fn no_upload() -> super::wire::Reply {
    let message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    refusal(404, "NoSuchUpload", message)
}

impl Bucket {
    pub fn create_upload(&mut self, request: &Request, now: SystemTime) -> Result {
        let algorithm = request
            .header("x-amz-checksum-algorithm")
            .map(str::to_lowercase);
        if let Some(algorithm) = &algorithm
            && !ALGORITHMS.contains(&algorithm.as_str())
        {
            return Err(refusal(501, "NotImplemented", algorithm));
        }
        let upload = Upload {
            key: request.key.clone(),
            started: now,
            dress: self.dress(request, now)?,
            algorithm,
            parts: BTreeMap::new(),
        };
        let id = self.next_id("upload");
        self.uploads.insert(id.clone(), upload);
        Ok(reply(200).xml(format!(
            "<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
            request.bucket,
            escape(&request.key)
        )))
    }

    fn upload(&mut self, request: &Request) -> Result<&mut Upload> {
        let id = request.parameter("uploadId").unwrap_or_default();
        let found = self.uploads.get_mut(id);
        found
            .filter(|upload| upload.key == request.key)
            .ok_or_else(no_upload)
    }

    pub fn upload_part(&mut self, request: &Request) -> Result {
        let number = request.parameter("partNumber").and_then(|n| n.parse().ok());
        let Some(number @ 1..=10_000) = number else {
            let message = "Part number must be an integer between 1 and 10000, inclusive";
            return Err(refusal(400, "InvalidArgument", message));
        };
        let sum = sums::brought(request)?;
        let summed = has_sum(request)?;
        let upload = self.upload(request)?;
        if (upload.dress.lock.is_some() || upload.dress.hold) && !summed {
            let message = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part requests with Object Lock parameters";
            return Err(refusal(400, "InvalidRequest", message));
        }
        // Seen in arrow-rs#6793, and the other way round in a comparison with AWS (floci#3093).
        let brought = sum.as_ref().map(|(algorithm, _)| algorithm.as_str());
        if brought != upload.algorithm.as_deref() {
            let message = format!(
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                upload.algorithm.as_deref().unwrap_or("null"),
                brought.unwrap_or("null"),
            );
            return Err(refusal(400, "InvalidRequest", &message));
        }
        let etag = format!("\"{}\"", hex(&sums::md5(&request.body)));
        let mut answer = reply(200).header("etag", etag.clone());
        if let Some((algorithm, value)) = &sum {
            answer = answer.header(&format!("x-amz-checksum-{algorithm}"), value.clone());
        }
        let part = Part {
            data: request.body.clone(),
            etag,
            sum: sum.map(|(_, value)| value),
        };
        upload.parts.insert(number, part);
        Ok(answer)
    }

    pub fn complete_upload(&mut self, request: &Request, now: SystemTime) -> Result {
        self.upload(request)?;
        self.conditions(request)?;
        let upload = self.upload(request)?;
        let listed = parts_of(&request.text());
        if listed.is_empty() {
            let message = "The XML you provided was not well-formed or did not validate against our published schema";
            return Err(refusal(400, "MalformedXML", message));
        }
        if !listed.is_sorted_by(|a, b| a.number < b.number) {
            let message = "The list of parts was not in ascending order. Parts must be ordered by part number.";
            return Err(refusal(400, "InvalidPartOrder", message));
        }
        let (mut data, mut digests, mut checksums) = (BytesMut::new(), Vec::new(), Vec::new());
        for (at, said) in listed.iter().enumerate() {
            let part = upload.parts.get(&said.number);
            let part =
                part.filter(|part| part.etag.trim_matches('"') == said.etag.trim_matches('"'));
            let wrong_sum = |part: &&Part| said.sum.is_some() && said.sum != part.sum;
            let Some(part) = part.filter(|part| !wrong_sum(part)) else {
                let message = "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
                return Err(refusal(400, "InvalidPart", message));
            };
            if let Some(algorithm) = &upload.algorithm
                && algorithm != "crc64nvme"
                && said.sum.is_none()
            {
                let message = format!(
                    "The upload was created using a {algorithm} checksum. The complete request must include the checksum for each part. It was missing for part {} in the request.",
                    said.number
                );
                return Err(refusal(400, "InvalidRequest", &message));
            }
            if at + 1 < listed.len() && part.data.len() < MIN_PART {
                let message = "Your proposed upload is smaller than the minimum allowed size";
                return Err(refusal(400, "EntityTooSmall", message));
            }
            data.extend_from_slice(&part.data);
            digests.extend(sums::md5(&part.data));
            checksums.extend(part.sum.clone());
        }
        // A CRC of 64 bits is always of the whole object, SHA-256 never (S3 user guide: checking
        // object integrity).
        let checksum = upload.algorithm.clone().map(|name| {
            let value = match name.as_str() {
                "crc64nvme" => sums::sum(&name, &data),
                _ => sums::composite(&name, &checksums),
            };
            (name, value)
        });
        if let Some((name, value)) = &checksum
            && let Some(said) = request.header(&format!("x-amz-checksum-{name}"))
            && said != value
        {
            let message = format!(
                "The {} you specified did not match the calculated checksum.",
                name.to_uppercase()
            );
            return Err(refusal(400, "BadDigest", &message));
        }
        let version = Version {
            id: "null".to_owned(),
            data: Some(data.freeze()),
            etag: format!("\"{}-{}\"", hex(&sums::md5(&digests)), listed.len()),
            modified: now,
            lock: upload.dress.lock.clone(),
            hold: upload.dress.hold,
            checksum,
            headers: upload.dress.headers.clone(),
        };
        let etag = version.etag.clone();
        let id = request.parameter("uploadId").unwrap_or_default().to_owned();
        self.uploads.remove(&id);
        Ok(self.store(&request.key, version).xml(format!(
            "<CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag></CompleteMultipartUploadResult>",
            request.bucket,
            escape(&request.key),
            escape(&etag)
        )))
    }

    pub fn abort_upload(&mut self, request: &Request) -> Result {
        self.upload(request)?;
        let id = request.parameter("uploadId").unwrap_or_default().to_owned();
        self.uploads.remove(&id);
        Ok(reply(204))
    }

    pub fn list_parts(&mut self, request: &Request) -> Result {
        let upload = self.upload(request)?;
        let mut out = String::new();
        for (number, part) in &upload.parts {
            out += &format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag><Size>{}</Size></Part>",
                escape(&part.etag),
                part.data.len()
            );
        }
        Ok(reply(200).xml(format!(
            "<ListPartsResult><IsTruncated>false</IsTruncated>{out}</ListPartsResult>"
        )))
    }

    /// In the order of keys, then of their beginning. Pages go by both markers.
    pub fn list_uploads(&self, request: &Request, page: usize) -> Result {
        let prefix = request.parameter("prefix").unwrap_or_default();
        let after = (
            request.parameter("key-marker").unwrap_or_default(),
            request.parameter("upload-id-marker").unwrap_or_default(),
        );
        let mut all: Vec<(&str, &str, &Upload)> = self
            .uploads
            .iter()
            .map(|(id, upload)| (upload.key.as_str(), id.as_str(), upload))
            .filter(|(key, id, _)| key.starts_with(prefix) && (*key, *id) > after)
            .filter(|(key, ..)| !(after.1.is_empty() && *key == after.0))
            .collect();
        all.sort_by_key(|(key, id, _)| (*key, *id));
        let more = all.len() > page;
        all.truncate(page);
        let mut out = format!("<IsTruncated>{more}</IsTruncated>");
        if let (true, Some((key, id, _))) = (more, all.last()) {
            out += &format!(
                "<NextKeyMarker>{}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>",
                escape(key)
            );
        }
        for (key, id, upload) in all {
            out += &format!(
                "<Upload><Key>{}</Key><UploadId>{id}</UploadId><Initiated>{}</Initiated></Upload>",
                escape(key),
                rfc3339(upload.started)
            );
        }
        Ok(reply(200).xml(format!(
            "<ListMultipartUploadsResult>{out}</ListMultipartUploadsResult>"
        )))
    }
}

struct Listed {
    number: u32,
    etag: String,
    sum: Option<String>,
}

fn parts_of(text: &str) -> Vec<Listed> {
    elements(text, "Part")
        .iter()
        .filter_map(|part| {
            Some(Listed {
                number: element(part, "PartNumber")?.parse().ok()?,
                etag: element(part, "ETag")?,
                sum: element(part, "ChecksumSHA256").or_else(|| element(part, "ChecksumCRC64NVME")),
            })
        })
        .collect()
}
