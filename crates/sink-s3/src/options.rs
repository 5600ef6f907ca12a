use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Key, Result, Secret};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::HttpClient;
use object_store::{BackoffConfig, RetryConfig};
use serde::Deserialize;

use crate::client::Client;
use crate::sink::Settings;
use crate::{Lock, S3Sink};

const MIB: u64 = 1 << 20;
/// "Amazon S3 multipart upload limits": 5 MiB to 5 GiB, the last part may be smaller.
const PART_SIZES: std::ops::RangeInclusive<u64> = 5 * MIB..=5 << 30;
/// 10,000 parts of it hold what core puts into one object, 64 GiB.
const PART_SIZE: u64 = 8 * MIB;

/// How a bucket is reached, and what is asked of it.
///
/// In configuration: `{ url = "s3://bucket/prefix", endpoint = "https://…", region = "…",
/// access_key_id = "…", secret_access_key_file = "…", lock = { mode = "compliance", days = 30 },
/// sse = "AES256", storage_class = "…", checksum = "sha256" }`. `Debug` shows no secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Options {
    url: String,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<Secret>,
    session_token: Option<Secret>,
    lock: Option<Lock>,
    object_lock: Option<bool>,
    versions: Option<bool>,
    sse: Option<Encryption>,
    storage_class: Option<String>,
    #[serde(default)]
    checksum: Checksum,
    path_style: Option<bool>,
    part_size: Option<u64>,
    #[serde(default)]
    allow_http: bool,
    retries: Option<u32>,
    #[serde(skip)]
    environment: bool,
}

/// How the server encrypts what lies on its disks. In configuration: `"AES256"` or
/// `{ kms = "key id" }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Encryption {
    /// With keys of the server.
    Managed(Managed),
    /// With a key of the key management service.
    Kms {
        /// Its id or ARN.
        kms: String,
    },
}

/// With keys of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Managed {
    /// AES-256.
    #[serde(rename = "AES256")]
    Aes256,
}

/// What the server checks the bytes by, and keeps beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// SHA-256, which is computed for the signature anyway.
    #[default]
    Sha256,
    /// CRC-64/NVME, one for the whole object whatever its parts.
    Crc64Nvme,
}

impl Checksum {
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Sha256 => "x-amz-checksum-sha256",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
        }
    }
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
            retries: None,
            environment: false,
        }
    }

    /// Takes what is not set from `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, web identity and container
    /// credentials, and the proxy from `HTTPS_PROXY`. Without it nothing of the environment
    /// counts. Profiles in `~/.aws` are not read. Where there are no credentials the instance's
    /// metadata service is asked, always.
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

    /// Locks every object. Implies [`object_lock`](Self::object_lock).
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

    /// Encryption by the server. The bucket's default otherwise.
    #[must_use]
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.sse = Some(encryption);
        self
    }

    /// `STANDARD_IA`, `GLACIER_IR`, … The bucket's default otherwise.
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

    /// How often a request is repeated, with pauses from 0.1 to 10 seconds; 9 by default.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Checks everything that can be checked without a request. `Invalid` says what is wrong.
    pub fn build(self) -> Result<S3Sink> {
        let (bucket, prefix) = self.place()?;
        if let Some(Lock { days: 0, .. }) = self.lock {
            return Err(invalid("lock.days is 0; leave lock out, or lock for a day"));
        }
        let part_size = self.part_size.unwrap_or(PART_SIZE);
        if !PART_SIZES.contains(&part_size) {
            return Err(invalid("part_size must be 5 MiB to 5 GiB"));
        }
        let object_lock = self.object_lock.unwrap_or(self.lock.is_some());
        let versions = self.versions.unwrap_or(object_lock);
        if self.lock.is_some() && !object_lock || object_lock && !versions {
            return Err(invalid("a lock needs object_lock, and that needs versions"));
        }
        for (name, text) in [
            ("storage_class", &self.storage_class),
            ("region", &self.region),
        ] {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            if text
                .as_ref()
                .is_some_and(|t| t.is_empty() || !t.chars().all(plain))
            {
                return Err(invalid(format!(
                    "{name} is a name of letters, digits, _ and -"
                )));
            }
        }
        if let Some(Encryption::Kms { kms }) = &self.sse
            && (kms.is_empty() || !kms.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(invalid("sse.kms is the id or the ARN of a key"));
        }

        let aws = self.aws(&bucket);
        let region = setting(&aws, AmazonS3ConfigKey::Region);
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = setting(&aws, AmazonS3ConfigKey::S3Endpoint)
            .or_else(|| setting(&aws, AmazonS3ConfigKey::Endpoint));
        let base = self.base(&bucket, endpoint.as_deref(), &region)?;
        let client = Client {
            http: self.http(&base)?,
            credentials: aws
                .build()
                .map_err(|e| invalid("the credentials are not complete").with_source(e))?
                .credentials()
                .clone(),
            region,
            base,
            retries: self.retries.unwrap_or(9),
        };
        let name = match &prefix {
            Some(prefix) => format!("s3://{bucket}/{prefix}"),
            None => format!("s3://{bucket}"),
        };
        Ok(S3Sink(Arc::new(Settings {
            client,
            name,
            prefix: prefix.map_or_else(String::new, |prefix| format!("{prefix}/")),
            lock: self.lock,
            object_lock,
            versions,
            sse: self.sse,
            storage_class: self.storage_class,
            checksum: self.checksum,
            part_size: part_size as usize,
        })))
    }

    fn place(&self) -> Result<(String, Option<Key>)> {
        let wrong = || invalid(format!("url is {:?}; write s3://bucket/prefix", self.url));
        let rest = self.url.strip_prefix("s3://").ok_or_else(wrong)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // "General purpose bucket naming rules" of the S3 User Guide.
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(plain) {
            return Err(wrong());
        }
        let prefix = match prefix.trim_end_matches('/') {
            "" => None,
            prefix => Some(Key::parse(prefix).map_err(|e| wrong().with_source(e))?),
        };
        Ok((bucket.to_owned(), prefix))
    }

    /// The chain of credentials.
    fn aws(&self, bucket: &str) -> AmazonS3Builder {
        let mut aws = match self.environment {
            true => AmazonS3Builder::from_env(),
            false => AmazonS3Builder::new(),
        };
        aws = aws.with_bucket_name(bucket).with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 2,
            retry_timeout: Duration::from_secs(30),
        });
        if let Some(region) = &self.region {
            aws = aws.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            aws = aws.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        if let Some(id) = &self.access_key_id {
            aws = aws.with_access_key_id(id);
        }
        if let Some(secret) = &self.secret_access_key {
            aws = aws.with_secret_access_key(secret.expose());
        }
        if let Some(token) = &self.session_token {
            aws = aws.with_token(token.expose());
        }
        aws
    }

    fn base(&self, bucket: &str, endpoint: Option<&str>, region: &str) -> Result<String> {
        let path_style = self.path_style;
        let Some(endpoint) = endpoint else {
            let domain = match region.starts_with("cn-") {
                true => "amazonaws.com.cn",
                false => "amazonaws.com",
            };
            // The certificate of AWS does not fit names with dots.
            return Ok(match path_style.unwrap_or(bucket.contains('.')) {
                true => format!("https://s3.{region}.{domain}/{bucket}"),
                false => format!("https://{bucket}.s3.{region}.{domain}"),
            });
        };
        let wrong = |why: &str| invalid(format!("endpoint is {endpoint:?}; {why}"));
        let (scheme, host) = endpoint
            .split_once("://")
            .ok_or_else(|| wrong("write https://host"))?;
        let host = host.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '?', '#', '@']) {
            return Err(wrong("write https://host or https://host:port"));
        }
        match scheme {
            "https" => {}
            "http" if self.allow_http || is_loopback(host) => {}
            "http" => return Err(wrong("write https, or set allow_http")),
            _ => return Err(wrong("write https://host")),
        }
        Ok(match path_style.unwrap_or(true) {
            true => format!("{scheme}://{host}/{bucket}"),
            false => format!("{scheme}://{bucket}.{host}"),
        })
    }

    fn http(&self, base: &str) -> Result<HttpClient> {
        let mut http = reqwest::Client::builder()
            // A signature is for one host, and so are the bytes.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lifebelt/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            // Servers close idle connections after 5 to 60 seconds.
            .pool_idle_timeout(Duration::from_secs(4));
        let host = base
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        if !self.environment || host.is_some_and(is_loopback) {
            http = http.no_proxy();
        }
        let http = http.build();
        Ok(HttpClient::new(http.map_err(|e| {
            Error::new(ErrorKind::Other, "no HTTP client can be made").with_source(e)
        })?))
    }
}

fn setting(aws: &AmazonS3Builder, key: AmazonS3ConfigKey) -> Option<String> {
    aws.get_config_value(&key)
}

/// Whether `host`, perhaps with a port, is this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Managed(Managed::Aes256) => "AES256",
            Self::Kms { .. } => "aws:kms",
        })
    }
}
