use std::path::PathBuf;

use backup_core::Secret;
use serde::Deserialize;

use crate::{Checksum, Encryption, Lock};

/// How a bucket is reached, and what is asked of it.
///
/// In configuration: `{ url = "s3://bucket/prefix", endpoint = "https://…", region = "…",
/// access_key_id = "…", secret_access_key_file = "…", lock = { mode = "compliance", days = 30 },
/// sse = "AES256", storage_class = "…", checksum = "sha256", ca_file = "…" }`. `Debug` shows no
/// secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Options {
    pub(crate) url: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<Secret>,
    pub(crate) session_token: Option<Secret>,
    pub(crate) lock: Option<Lock>,
    pub(crate) object_lock: Option<bool>,
    pub(crate) versions: Option<bool>,
    pub(crate) sse: Option<Encryption>,
    pub(crate) storage_class: Option<String>,
    #[serde(default)]
    pub(crate) checksum: Checksum,
    pub(crate) path_style: Option<bool>,
    pub(crate) part_size: Option<u64>,
    #[serde(default)]
    pub(crate) allow_http: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) retries: Option<u32>,
    #[serde(skip)]
    pub(crate) environment: bool,
}

impl S3Options {
    /// For `s3://bucket` or `s3://bucket/prefix`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            lock: None,
            object_lock: None,
            versions: None,
            sse: None,
            storage_class: None,
            checksum: Checksum::default(),
            path_style: None,
            part_size: None,
            allow_http: false,
            ca_file: None,
            retries: None,
            environment: false,
        }
    }

    /// Takes what is not set from where AWS's own tools have it, the nearest first:
    ///
    /// - region, endpoint and CA: `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL_S3`,
    ///   `AWS_ENDPOINT_URL`, `AWS_CA_BUNDLE`; then `region`, `endpoint_url` and `ca_bundle` of the
    ///   profile;
    /// - credentials: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; then
    ///   those of the profile; then web identity, the container and the instance;
    /// - the proxy: `HTTPS_PROXY`.
    ///
    /// The profile is the one that `AWS_PROFILE` names, or `default`, in `~/.aws/credentials` and
    /// `~/.aws/config` or the files that `AWS_SHARED_CREDENTIALS_FILE` and `AWS_CONFIG_FILE` name.
    /// One that gets its credentials by a role, by SSO or from a program is an error where they are
    /// needed, and an access key without its secret is one anywhere: nobody else is asked instead.
    ///
    /// Without this call nothing of the environment counts, and where there are no credentials the
    /// instance is asked.
    #[must_use]
    pub fn with_env(mut self) -> Self {
        self.environment = true;
        self
    }

    /// The server, where it is not AWS: `https://host` or `https://host:port`.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = Some(endpoint.into());
        self
    }

    /// `us-east-1` by default.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The access key and its secret.
    #[must_use]
    pub fn credentials(mut self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        self.access_key_id = Some(id.into());
        self.secret_access_key = Some(Secret::new(secret));
        self
    }

    /// What temporary credentials have besides.
    #[must_use]
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Secret::new(token));
        self
    }

    /// Locks every object, unless a put asks for a time of its own, as a job's own lock does. Implies
    /// [`object_lock`](Self::object_lock).
    #[must_use]
    pub fn lock(mut self, lock: Lock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// The bucket was made with Object Lock: a put may ask for `retain_until`, in the mode of
    /// [`lock`](Self::lock) or else in compliance mode. Implies [`versions`](Self::versions).
    #[must_use]
    pub fn object_lock(mut self, object_lock: bool) -> Self {
        self.object_lock = Some(object_lock);
        self
    }

    /// The bucket keeps versions: put tells them, and listings look behind delete markers.
    #[must_use]
    pub fn versions(mut self, versions: bool) -> Self {
        self.versions = Some(versions);
        self
    }

    /// Encryption by the server; an object that has another is an error. The bucket's default
    /// otherwise.
    #[must_use]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.sse = Some(encryption);
        self
    }

    /// `STANDARD_IA`, `GLACIER_IR`, …; an object that has another is an error. The bucket's default
    /// otherwise.
    #[must_use]
    pub fn storage_class(mut self, class: impl Into<String>) -> Self {
        self.storage_class = Some(class.into());
        self
    }

    /// SHA-256 by default.
    #[must_use]
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// Whether the bucket is in the path and not in the host's name. With an
    /// [`endpoint`](Self::endpoint) it is, unless told otherwise.
    #[must_use]
    pub fn path_style(mut self, path_style: bool) -> Self {
        self.path_style = Some(path_style);
        self
    }

    /// Bytes of each part of a multipart upload, 5 MiB to 5 GiB; 8 MiB by default. A put holds
    /// three, and an object has at most 10,000.
    #[must_use]
    pub fn part_size(mut self, bytes: u64) -> Self {
        self.part_size = Some(bytes);
        self
    }

    /// Speaks plain HTTP to other machines too. Backups are sealed, what they are called is not.
    #[must_use]
    pub fn allow_http(mut self, allow: bool) -> Self {
        self.allow_http = allow;
        self
    }

    /// A file of PEM certificates to trust besides the system's.
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// How often a request is repeated, with pauses from 0.1 to 10 seconds; 9 by default.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }
}
