//! Buckets in memory: objects, their versions and locks. Uploads are in `uploads.rs`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;

use super::rules::has_sum;
use super::sign::hex;
use super::sums;
use super::uploads::Upload;
use super::wire::{Reply, Request, Result, element, elements, escape, refusal, reply};

/// One version of an object, or a delete marker.
#[derive(Clone)]
pub struct Version {
    pub id: String,
    /// `None` is a delete marker.
    pub data: Option<Bytes>,
    pub etag: String,
    pub modified: SystemTime,
    pub lock: Option<(String, SystemTime)>,
    pub hold: bool,
    pub checksum: Option<(String, String)>,
    /// Metadata, storage class, encryption: given back as they came.
    pub headers: Vec<(String, String)>,
}

#[derive(Default)]
pub struct Bucket {
    /// Object Lock, and so versions.
    pub locked: bool,
    /// The mode and days that objects get which bring none.
    pub default: Option<(String, u32)>,
    /// The newest version last.
    pub objects: BTreeMap<String, Vec<Version>>,
    pub uploads: BTreeMap<String, Upload>,
    pub counter: u64,
}

pub fn rfc3339(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn http_date(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Headers that an object keeps.
fn kept_headers(request: &Request) -> Result<Vec<(String, String)>> {
    let mut kept = Vec::new();
    for (name, value) in &request.headers {
        let (name, value) = (name.as_str(), value.to_str().unwrap_or_default());
        let keeps = match name {
            // Source: the valid values of PutObject in the API reference.
            "x-amz-storage-class" => {
                let classes = [
                    "STANDARD",
                    "STANDARD_IA",
                    "ONEZONE_IA",
                    "INTELLIGENT_TIERING",
                    "GLACIER",
                    "GLACIER_IR",
                    "DEEP_ARCHIVE",
                ];
                if !classes.contains(&value) {
                    let message = "The storage class you specified is not valid";
                    return Err(refusal(400, "InvalidStorageClass", message));
                }
                true
            }
            "x-amz-server-side-encryption" => {
                if !["AES256", "aws:kms", "aws:kms:dsse"].contains(&value) {
                    let message = "The encryption method specified is not supported";
                    return Err(refusal(400, "InvalidArgument", message));
                }
                true
            }
            "x-amz-server-side-encryption-aws-kms-key-id" | "content-type" => true,
            _ => name.starts_with("x-amz-meta-"),
        };
        if keeps {
            kept.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(kept)
}

/// What a new object brings but its bytes.
#[derive(Clone)]
pub struct Dress {
    pub lock: Option<(String, SystemTime)>,
    pub hold: bool,
    pub headers: Vec<(String, String)>,
}

impl Bucket {
    pub fn next_id(&mut self, prefix: &str) -> String {
        self.counter += 1;
        format!("{prefix}{:08}", self.counter)
    }

    /// Lock, hold and metadata of a new object. Sources: PutObject in the API reference, and the
    /// answers that users report (arrow-rs-object-store#190, s3cmd#1436, versitygw#1776).
    pub fn dress(&self, request: &Request, now: SystemTime) -> Result<Dress> {
        let mode = request.header("x-amz-object-lock-mode");
        let until = request.header("x-amz-object-lock-retain-until-date");
        let hold = request.header("x-amz-object-lock-legal-hold") == Some("ON");
        if (mode.is_some() || until.is_some() || hold) && !self.locked {
            let message = "Bucket is missing Object Lock Configuration";
            return Err(refusal(400, "InvalidRequest", message));
        }
        let lock = match (mode, until) {
            (None, None) => self.default.as_ref().map(|(mode, days)| {
                let length = std::time::Duration::from_secs(u64::from(*days) * 24 * 3600);
                (mode.clone(), now + length)
            }),
            (Some(mode), Some(until)) => Some(checked_lock(mode, until, now)?),
            _ => {
                let message = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied";
                return Err(refusal(400, "InvalidArgument", message));
            }
        };
        Ok(Dress {
            lock,
            hold,
            headers: kept_headers(request)?,
        })
    }

    /// `If-None-Match: *` and `If-Match`.
    pub fn conditions(&self, request: &Request) -> Result<()> {
        let current = self.current(&request.key);
        let failed = match (request.header("if-none-match"), request.header("if-match")) {
            (Some("*"), None) => current.is_some(),
            (None, Some(etag)) => match current {
                Some(version) => version.etag.trim_matches('"') != etag.trim_matches('"'),
                None => {
                    return Err(refusal(
                        404,
                        "NoSuchKey",
                        "The specified key does not exist.",
                    ));
                }
            },
            (None, None) => false,
            _ => return Err(refusal(501, "NotImplemented", "that condition")),
        };
        if failed {
            let message = "At least one of the pre-conditions you specified did not hold";
            return Err(refusal(412, "PreconditionFailed", message));
        }
        Ok(())
    }

    fn current(&self, key: &str) -> Option<&Version> {
        let newest = self.objects.get(key)?.last()?;
        newest.data.is_some().then_some(newest)
    }

    /// A new newest version: beside the others where there are versions, else in their place.
    pub fn store(&mut self, key: &str, mut version: Version) -> Reply {
        let mut answer = reply(200).header("etag", version.etag.clone());
        if let Some((algorithm, value)) = &version.checksum {
            answer = answer.header(&format!("x-amz-checksum-{algorithm}"), value.clone());
        }
        for (name, value) in &version.headers {
            if name.starts_with("x-amz-server-side") {
                answer = answer.header(name, value.clone());
            }
        }
        if self.locked {
            version.id = self.next_id("v");
            answer = answer.header("x-amz-version-id", version.id.clone());
            self.objects
                .entry(key.to_owned())
                .or_default()
                .push(version);
        } else {
            self.objects.insert(key.to_owned(), vec![version]);
        }
        answer
    }

    pub fn put(&mut self, request: &Request, now: SystemTime) -> Result {
        let dress = self.dress(request, now)?;
        if (dress.lock.is_some() || dress.hold) && !has_sum(request)? {
            let message = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
            return Err(refusal(400, "InvalidRequest", message));
        }
        self.conditions(request)?;
        let version = Version {
            id: "null".to_owned(),
            etag: format!("\"{}\"", hex(&sums::md5(&request.body))),
            data: Some(request.body.clone()),
            modified: now,
            lock: dress.lock,
            hold: dress.hold,
            checksum: sums::brought(request)?,
            headers: dress.headers,
        };
        Ok(self.store(&request.key, version))
    }

    /// The version that a request names, or the newest.
    fn find(&self, request: &Request) -> Result<&Version> {
        let missing = || refusal(404, "NoSuchKey", "The specified key does not exist.");
        let versions = self.objects.get(&request.key);
        let Some(id) = request.parameter("versionId") else {
            let newest = versions.and_then(|v| v.last()).ok_or_else(missing)?;
            return match newest.data {
                Some(_) => Ok(newest),
                None => Err(missing()
                    .header("x-amz-delete-marker", "true")
                    .header("x-amz-version-id", newest.id.clone())),
            };
        };
        let found = versions.and_then(|all| all.iter().find(|version| version.id == id));
        match found {
            Some(version) if version.data.is_some() => Ok(version),
            Some(_) => {
                let message = "The specified method is not allowed against this resource.";
                Err(refusal(405, "MethodNotAllowed", message).header("x-amz-delete-marker", "true"))
            }
            None => Err(refusal(
                404,
                "NoSuchVersion",
                "The specified version does not exist.",
            )),
        }
    }

    pub fn get(&self, request: &Request) -> Result {
        let version = self.find(request)?;
        let data = version.data.clone().unwrap_or_default();
        if let Some(etag) = request.header("if-match")
            && etag.trim_matches('"') != version.etag.trim_matches('"')
        {
            let message = "At least one of the pre-conditions you specified did not hold";
            return Err(refusal(412, "PreconditionFailed", message));
        }
        let mut answer = match request
            .header("range")
            .map(|range| slice(range, data.len()))
        {
            None => {
                let mut answer = reply(200);
                answer.body = data;
                answer
            }
            Some(Some((start, end))) => {
                let of = format!("bytes {start}-{}/{}", end - 1, data.len());
                let mut answer = reply(206).header("content-range", of);
                answer.body = data.slice(start..end);
                answer
            }
            Some(None) => {
                let message = "The requested range is not satisfiable";
                return Err(refusal(416, "InvalidRange", message));
            }
        };
        answer = answer
            .header("etag", version.etag.clone())
            .header("accept-ranges", "bytes")
            .header("last-modified", http_date(version.modified));
        if self.locked {
            answer = answer.header("x-amz-version-id", version.id.clone());
        }
        if let Some((mode, until)) = &version.lock {
            answer = answer
                .header("x-amz-object-lock-mode", mode.clone())
                .header("x-amz-object-lock-retain-until-date", rfc3339(*until));
        }
        if version.hold {
            answer = answer.header("x-amz-object-lock-legal-hold", "ON");
        }
        if let Some((algorithm, value)) = &version.checksum
            && request.header("x-amz-checksum-mode") == Some("ENABLED")
            && answer.status == 200
        {
            answer = answer.header(&format!("x-amz-checksum-{algorithm}"), value.clone());
        }
        for (name, value) in &version.headers {
            answer = answer.header(name, value.clone());
        }
        Ok(answer)
    }

    pub fn delete(&mut self, request: &Request, now: SystemTime) -> Result {
        let bypass = request.header("x-amz-bypass-governance-retention") == Some("true");
        self.delete_one(&request.key, request.parameter("versionId"), bypass, now)
    }

    /// One object of a DELETE or of a POST ?delete. With versions, a delete without one hides.
    pub fn delete_one(
        &mut self,
        key: &str,
        version: Option<&str>,
        bypass: bool,
        now: SystemTime,
    ) -> Result {
        let Some(id) = version else {
            if !self.locked {
                self.objects.remove(key);
                return Ok(reply(204));
            }
            let id = self.next_id("v");
            let marker = Version {
                id: id.clone(),
                data: None,
                etag: String::new(),
                modified: now,
                lock: None,
                hold: false,
                checksum: None,
                headers: Vec::new(),
            };
            self.objects.entry(key.to_owned()).or_default().push(marker);
            return Ok(reply(204)
                .header("x-amz-delete-marker", "true")
                .header("x-amz-version-id", id));
        };
        let versions = self.objects.entry(key.to_owned()).or_default();
        if let Some(at) = versions.iter().position(|version| version.id == id) {
            let found = &versions[at];
            let retained = found
                .lock
                .as_ref()
                .is_some_and(|(mode, until)| *until > now && !(bypass && mode == "GOVERNANCE"));
            if retained || found.hold {
                let message = "Access Denied because object protected by object lock.";
                return Err(refusal(403, "AccessDenied", message));
            }
            versions.remove(at);
        }
        if versions.is_empty() {
            self.objects.remove(key);
        }
        Ok(reply(204).header("x-amz-version-id", id))
    }

    pub fn delete_several(&mut self, request: &Request, now: SystemTime) -> Result {
        let bypass = request.header("x-amz-bypass-governance-retention") == Some("true");
        let mut out = String::from("<DeleteResult>");
        for object in elements(&request.text(), "Object") {
            // `elements` has taken one level of escapes away already.
            let key = element(&object, "Key").unwrap_or_default();
            let version = element(&object, "VersionId");
            match self.delete_one(&key, version.as_deref(), bypass, now) {
                Ok(_) => out += &format!("<Deleted><Key>{}</Key></Deleted>", escape(&key)),
                Err(_) => {
                    out += &format!(
                        "<Error><Key>{}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
                        escape(&key)
                    );
                }
            }
        }
        Ok(reply(200).xml(out + "</DeleteResult>"))
    }

    pub fn retention(&self, request: &Request) -> Result {
        match &self.find(request)?.lock {
            Some((mode, until)) => Ok(reply(200).xml(format!(
                "<Retention><Mode>{mode}</Mode><RetainUntilDate>{}</RetainUntilDate></Retention>",
                rfc3339(*until)
            ))),
            None => Err(refusal(
                404,
                "NoSuchObjectLockConfiguration",
                "The specified object does not have a ObjectLock configuration",
            )),
        }
    }

    /// Compliance can only be lengthened; governance can be changed with the bypass.
    pub fn put_retention(&mut self, request: &Request, now: SystemTime) -> Result {
        let text = request.text();
        let mode = element(&text, "Mode").unwrap_or_default();
        let until = element(&text, "RetainUntilDate").unwrap_or_default();
        let lock = checked_lock(&mode, &until, now)?;
        let bypass = request.header("x-amz-bypass-governance-retention") == Some("true");
        let version = self.find_mut(request)?;
        if let Some((mode, until)) = &version.lock
            && *until > now
        {
            let weaker = lock.1 < *until || (mode == "COMPLIANCE" && lock.0 != "COMPLIANCE");
            if weaker && !(bypass && mode == "GOVERNANCE") {
                let message = "Access Denied because object protected by object lock.";
                return Err(refusal(403, "AccessDenied", message));
            }
        }
        version.lock = Some(lock);
        Ok(reply(200))
    }

    pub fn legal_hold(&self, request: &Request) -> Result {
        let status = if self.find(request)?.hold {
            "ON"
        } else {
            "OFF"
        };
        Ok(reply(200).xml(format!("<LegalHold><Status>{status}</Status></LegalHold>")))
    }

    pub fn put_legal_hold(&mut self, request: &Request) -> Result {
        let on = element(&request.text(), "Status").as_deref() == Some("ON");
        self.find_mut(request)?.hold = on;
        Ok(reply(200))
    }

    fn find_mut(&mut self, request: &Request) -> Result<&mut Version> {
        if !self.locked {
            let message = "Bucket is missing Object Lock Configuration";
            return Err(refusal(400, "InvalidRequest", message));
        }
        let id = self.find(request)?.id.clone();
        let versions = self.objects.get_mut(&request.key);
        let found = versions.and_then(|all| all.iter_mut().find(|version| version.id == id));
        found.ok_or_else(|| refusal(404, "NoSuchVersion", "gone"))
    }

    pub fn versioning(&self) -> Reply {
        let status = if self.locked {
            "<Status>Enabled</Status>"
        } else {
            ""
        };
        reply(200).xml(format!(
            "<VersioningConfiguration>{status}</VersioningConfiguration>"
        ))
    }

    pub fn lock_configuration(&self) -> Result {
        if !self.locked {
            let message = "Object Lock configuration does not exist for this bucket";
            return Err(refusal(
                404,
                "ObjectLockConfigurationNotFoundError",
                message,
            ));
        }
        let rule = self.default.as_ref().map(|(mode, days)| {
            format!("<Rule><DefaultRetention><Mode>{mode}</Mode><Days>{days}</Days></DefaultRetention></Rule>")
        });
        Ok(reply(200).xml(format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{}</ObjectLockConfiguration>",
            rule.unwrap_or_default()
        )))
    }
}

fn checked_lock(mode: &str, until: &str, now: SystemTime) -> Result<(String, SystemTime)> {
    let Ok(until) = until.parse::<jiff::Timestamp>() else {
        let message = "The retain until date must be provided in ISO 8601 format";
        return Err(refusal(400, "InvalidArgument", message));
    };
    if !["GOVERNANCE", "COMPLIANCE"].contains(&mode) {
        return Err(refusal(
            400,
            "InvalidArgument",
            "Unknown wormMode directive.",
        ));
    }
    let until = SystemTime::from(until);
    if until <= now {
        let message = "The retain until date must be in the future!";
        return Err(refusal(400, "InvalidArgument", message));
    }
    Ok((mode.to_owned(), until))
}

/// `bytes=…` as a half-open range of `len` bytes; what reaches beyond is cut, as RFC 9110 says.
fn slice(range: &str, len: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, len.min(last.checked_add(1)?)),
        (Ok(first), Err(_)) => (first, len),
        (Err(_), Ok(count)) => (len.saturating_sub(count), len),
        _ => return None,
    };
    (start < end).then_some((start, end))
}
