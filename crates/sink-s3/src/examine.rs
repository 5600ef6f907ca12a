//! What `doctor` wants to know of a bucket: its settings, and what these credentials may do to it.

use std::time::{Duration, SystemTime};

use backup_core::{ByteStream, Check, Clock, Health, Key, PutOptions, Result, Stamp, SystemClock};
use http::{Method, StatusCode};

use crate::S3Sink;
use crate::answer::{Lifecycle, ObjectLock, Rule, Versioning};
use crate::client::Request;
use crate::failure::Failure;
use crate::lock::LockMode;
use crate::sink::text;

/// How long the canary is locked, at first.
const CANARY: Duration = Duration::from_secs(60);

impl S3Sink {
    pub(crate) async fn look(&self) -> Result<Vec<Check>> {
        let versioning = self.versioning().await;
        let versioned = self.0.versions && versioning.health == Health::Ok;
        let mut checks = vec![versioning];
        checks.extend(self.object_lock().await);
        checks.extend(self.lifecycle().await);
        if self.0.object_lock {
            checks.extend(self.canary().await?);
        }
        checks.push(self.settings(versioned).await);
        Ok(checks)
    }

    async fn versioning(&self) -> Check {
        let name = "versioning";
        let request =
            Request::bucket("s3:GetBucketVersioning", Method::GET).query("versioning", "");
        let found = self.0.client.document::<Versioning>(&request).await;
        let on = match found {
            Ok(found) => found.status.as_deref() == Some("Enabled"),
            Err(failure) => return self.unseen(name, failure),
        };
        match (on, self.0.versions) {
            (true, true) => Check::ok(name, "on"),
            (false, true) => Check::fail(name, "off, and versions are relied on: turn it on"),
            (true, false) => Check::warn(
                name,
                "on, and this sink does not look at versions: say versions = true",
            ),
            (false, false) => Check::ok(name, "off: what is deleted is gone"),
        }
    }

    async fn object_lock(&self) -> Option<Check> {
        let name = "object lock";
        let request = Request::bucket("s3:GetBucketObjectLockConfiguration", Method::GET)
            .query("object-lock", "");
        let found = self.0.client.document::<ObjectLock>(&request).await;
        let on = match found {
            Ok(found) => found.object_lock_enabled.as_deref() == Some("Enabled"),
            Err(failure) if failure.code == "ObjectLockConfigurationNotFoundError" => false,
            Err(_) if !self.0.object_lock => return None,
            Err(failure) => return Some(self.unseen(name, failure)),
        };
        match (on, self.0.object_lock, self.0.lock) {
            (false, false, _) => None,
            (false, true, _) => Some(Check::fail(
                name,
                "the bucket has none: make one with Object Lock",
            )),
            (true, _, Some(lock)) => Some(Check::ok(
                name,
                format!("{} for {} days", lock.mode, lock.days),
            )),
            (true, _, None) => Some(Check::warn(
                name,
                "the bucket has it, and this sink locks nothing by itself: set lock",
            )),
        }
    }

    async fn lifecycle(&self) -> Vec<Check> {
        let name = "lifecycle";
        let request =
            Request::bucket("s3:GetLifecycleConfiguration", Method::GET).query("lifecycle", "");
        let rules = match self.0.client.document::<Lifecycle>(&request).await {
            Ok(found) => found.rules,
            Err(failure) if failure.code == "NoSuchLifecycleConfiguration" => Vec::new(),
            Err(failure) => return vec![self.unseen(name, failure)],
        };
        let ours: Vec<&Rule> = rules.iter().filter(|rule| self.concerns(rule)).collect();
        let mut checks: Vec<Check> = Vec::new();
        for rule in &ours {
            let rule_name = rule.id.as_deref().unwrap_or("without a name");
            if let Some(expiry) = &rule.expiration
                && (expiry.days.is_some() || expiry.date.is_some())
            {
                checks.push(Check::fail(
                    name,
                    format!(
                        "rule {rule_name:?} expires backups whatever the catalog keeps: take it \
                         away, retention is ours to decide"
                    ),
                ));
            }
            if let Some(days) = (rule.noncurrent_version_expiration.as_ref())
                .and_then(|noncurrent| noncurrent.noncurrent_days)
            {
                checks.push(Check::warn(
                    name,
                    format!(
                        "rule {rule_name:?} removes what somebody hid {days} days before: that \
                         is how long a deleted backup can be brought back"
                    ),
                ));
            }
        }
        let aborts = ours
            .iter()
            .filter_map(|rule| rule.abort_incomplete_multipart_upload.as_ref())
            .filter_map(|abort| abort.days_after_initiation)
            .min();
        checks.push(match aborts {
            Some(days) => Check::ok(name, format!("stale uploads end after {days} days")),
            None => Check::warn(
                name,
                "nothing ends stale uploads but our own sweep: add a rule with \
                 AbortIncompleteMultipartUpload",
            ),
        });
        checks
    }

    /// Whether a rule is in force for anything of ours.
    fn concerns(&self, rule: &Rule) -> bool {
        let filter = rule.filter.as_ref();
        let inner = filter.and_then(|filter| filter.and.as_ref());
        let prefix = (rule.prefix.as_deref())
            .or_else(|| filter?.prefix.as_deref())
            .or_else(|| inner?.prefix.as_deref())
            .unwrap_or_default();
        rule.status == "Enabled"
            && (self.0.prefix.starts_with(prefix) || prefix.starts_with(&self.0.prefix))
    }

    /// Puts a locked object and tries to get rid of it in every way.
    async fn canary(&self) -> Result<Vec<Check>> {
        let name = "lock";
        let now = SystemClock.now();
        let random = getrandom::u32().unwrap_or_default();
        let stamp = Stamp::from(now).compact();
        let key = Key::parse(format!("lifebelt-doctor/{stamp}-{random:08x}-locked"))?;
        let path = self.path(&key);
        let options = PutOptions::default().retain_until(now + CANARY);
        let data = ByteStream::from_bytes("canary");
        let object = match self.store(&key, data, &options).await {
            Ok(object) => object,
            Err(error) => return Ok(vec![Check::fail(name, error.chain())]),
        };
        let version = object.version.as_deref();
        let mut broken = Vec::new();
        let mut tried = Vec::new();

        // Lengthening must work, or shortening is refused for another reason than the lock.
        let longer = self.retain(&path, version, now + 2 * CANARY).await;
        if longer.is_ok() {
            tried.push("shorten it");
            if self.retain(&path, version, now + CANARY / 2).await.is_ok() {
                broken.push("shorten it");
            }
        }
        // MinIO lets everybody end a lock in governance mode like this, without the right to bypass
        // (`isPutRetentionAllowed` in its `auth-handler.go`).
        tried.push("end it");
        if self.set_retention(&path, version, "").await.is_ok()
            && let Ok(headers) = self.head(&path, version).await
            && text(&headers, "x-amz-object-lock-mode").is_none()
        {
            broken.push("end it");
        }
        tried.push("bypass it");
        let request = Request::object("s3:BypassGovernanceRetention", Method::DELETE, &path)
            .version(version)
            .header("x-amz-bypass-governance-retention", "true");
        if self.0.client.fetch_once(&request).await.is_ok() {
            broken.push("bypass it");
        }
        tried.push("delete what is under it");
        // After a bypass nothing is left, and deleting nothing is no sign.
        if broken.is_empty() && self.remove(&path, version).await.is_ok() {
            broken.push("delete what is under it");
        }
        let there = self.head(&path, version).await;
        if broken.is_empty()
            && !there.is_ok_and(|headers| text(&headers, "content-length") == Some("6"))
        {
            broken.push("make what is under it unreadable");
        }
        Ok(vec![match broken.is_empty() {
            true => Check::ok(
                name,
                format!(
                    "these credentials cannot {}; the canary `{key}` stays",
                    tried.join(", ")
                ),
            ),
            false => Check::fail(
                name,
                format!(
                    "these credentials can {}: take s3:BypassGovernanceRetention away from them, \
                     or lock in compliance mode",
                    broken.join(", ")
                ),
            ),
        }])
    }

    async fn retain(
        &self,
        path: &str,
        version: Option<&str>,
        until: SystemTime,
    ) -> Result<(), Failure> {
        let mode = self.0.lock.map_or(LockMode::Compliance, |lock| lock.mode);
        let until = Stamp::from(until);
        let retention = format!("<Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate>");
        self.set_retention(path, version, &retention).await
    }

    async fn set_retention(
        &self,
        path: &str,
        version: Option<&str>,
        retention: &str,
    ) -> Result<(), Failure> {
        let request = Request::object("s3:PutObjectRetention", Method::PUT, path)
            .query("retention", "")
            .version(version)
            .header("x-amz-bypass-governance-retention", "true")
            .setting(format!(
                "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{retention}</Retention>"
            ));
        self.0.client.fetch_once(&request).await.map(drop)
    }

    /// Whether these credentials may change the bucket. Nothing is changed: versioning is set to
    /// what it is, and a lifecycle that is none is refused for what it is by whoever may set one.
    async fn settings(&self, versioned: bool) -> Check {
        let name = "settings";
        let mut may = Vec::new();
        if versioned {
            let request = Request::bucket("s3:PutBucketVersioning", Method::PUT)
                .query("versioning", "")
                .setting(
                    "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                     <Status>Enabled</Status></VersioningConfiguration>"
                        .to_owned(),
                );
            let tried = self.0.client.fetch_once(&request).await;
            // 409: on a bucket with Object Lock it cannot be changed at all.
            if !tried.is_err_and(|f| f.is(StatusCode::FORBIDDEN) || f.is(StatusCode::CONFLICT)) {
                may.push("s3:PutBucketVersioning");
            }
        }
        let request = Request::bucket("s3:PutLifecycleConfiguration", Method::PUT)
            .query("lifecycle", "")
            .setting("<LifecycleConfiguration><Nothing/></LifecycleConfiguration>".to_owned());
        let tried = self.0.client.fetch_once(&request).await;
        if tried.is_err_and(|failure| failure.is(StatusCode::BAD_REQUEST)) {
            may.push("s3:PutLifecycleConfiguration");
        }
        match may.is_empty() {
            true => Check::ok(name, "these credentials cannot change the bucket"),
            false => Check::warn(
                name,
                format!(
                    "these credentials have {}: a writer needs neither",
                    may.join(" and ")
                ),
            ),
        }
    }

    fn unseen(&self, name: &str, failure: Failure) -> Check {
        let error = failure.into_error("look at its settings", self);
        Check::warn(name, format!("cannot be seen: {}", error.chain()))
    }
}
