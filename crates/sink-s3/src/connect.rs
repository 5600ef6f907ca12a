//! What the options say, checked, becomes a sink.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Key, Result, Secret};
use object_store::aws::AwsCredentialProvider;
use object_store::client::HttpClient;

use crate::client::Client;
use crate::credentials::{Environment, constant, keys};
use crate::sink::Settings;
use crate::{Encryption, Lock, S3Options, S3Sink};

const MIB: u64 = 1 << 20;
/// "Amazon S3 multipart upload limits": 5 MiB to 5 GiB, the last part may be smaller.
const PART_SIZES: RangeInclusive<u64> = 5 * MIB..=5 << 30;
/// 10,000 parts of it hold what core puts into one object, 64 GiB.
const PART_SIZE: u64 = 8 * MIB;

impl S3Options {
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
        if let Some(class) = &self.storage_class {
            check_name("storage_class", class)?;
        }
        if let Some(Encryption::Kms(key)) = &self.sse
            && (key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(invalid("sse.kms is the id, the alias or the ARN of a key"));
        }
        let name = match &prefix {
            Some(prefix) => format!("s3://{bucket}/{prefix}"),
            None => format!("s3://{bucket}"),
        };
        Ok(S3Sink(Arc::new(Settings {
            client: self.client(&bucket)?,
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

    /// What is not in the options comes from the environment, if that counts.
    fn client(&self, bucket: &str) -> Result<Client> {
        let variable = |name: &str| match self.environment {
            true => std::env::var(name).ok().filter(|value| !value.is_empty()),
            false => None,
        };
        let environment = Environment::read(&variable)?;
        let region = self.region.clone().or_else(|| environment.region());
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        check_name("region", &region)?;
        let endpoint = self.endpoint.clone().or_else(|| environment.endpoint());
        let base = self.base(bucket, endpoint.as_deref(), &region)?;
        let ca_file = self.ca_file.clone();
        let ca_file = ca_file.or_else(|| environment.ca_file().map(Into::into));
        let roots = ca_file
            .as_deref()
            .map_or_else(|| Ok(Roots::default()), Roots::read)?;
        Ok(Client {
            http: self.http(&base, roots.ours)?,
            credentials: self.asking(&environment, bucket, &region, roots.lent)?,
            region,
            base,
            retries: self.retries.unwrap_or(9),
        })
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

    /// Who asks: whoever the options name, or else the environment.
    fn asking(
        &self,
        environment: &Environment<'_>,
        bucket: &str,
        region: &str,
        roots: Vec<object_store::Certificate>,
    ) -> Result<AwsCredentialProvider> {
        let get = |name: &str| match name {
            "access_key_id" => self.access_key_id.clone(),
            "secret_access_key" => revealed(&self.secret_access_key),
            _ => revealed(&self.session_token),
        };
        let names = ["access_key_id", "secret_access_key", "session_token"];
        if let Some(keys) = keys(names, get, "")? {
            return Ok(constant(keys));
        }
        environment.credentials(bucket, region, roots)
    }

    fn http(&self, base: &str, roots: Vec<reqwest::Certificate>) -> Result<HttpClient> {
        let mut http = reqwest::Client::builder()
            // A signature is for one host, and so are the bytes.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("lifebelt/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            // Servers close idle connections after 5 to 60 seconds.
            .pool_idle_timeout(Duration::from_secs(4))
            .tls_certs_merge(roots);
        let host = base
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split('/').next());
        if !self.environment || host.is_some_and(is_loopback) {
            http = http.no_proxy();
        }
        let http = http.build();
        Ok(HttpClient::new(http.map_err(|e| {
            let why = "the certificates to trust cannot be used: look at ca_file and the system's";
            invalid(why).with_source(e)
        })?))
    }
}

/// Certificates to trust besides the system's.
#[derive(Default)]
struct Roots {
    ours: Vec<reqwest::Certificate>,
    /// For `object_store`, where it asks for credentials.
    lent: Vec<object_store::Certificate>,
}

impl Roots {
    fn read(file: &Path) -> Result<Self> {
        let wrong = |why: &str| invalid(format!("ca_file {}: {why}", file.display()));
        let pem = std::fs::read(file).map_err(|e| wrong("it cannot be read").with_source(e))?;
        let damaged = || wrong("a certificate in it is damaged");
        let ours = reqwest::Certificate::from_pem_bundle(&pem);
        let lent = object_store::Certificate::from_pem_bundle(&pem);
        let roots = Self {
            ours: ours.map_err(|e| damaged().with_source(e))?,
            lent: lent.map_err(|e| damaged().with_source(e))?,
        };
        match roots.ours.is_empty() {
            true => Err(wrong("there is no PEM certificate in it")),
            false => Ok(roots),
        }
    }
}

fn revealed(secret: &Option<Secret>) -> Option<String> {
    secret.as_ref().map(|secret| secret.expose().to_owned())
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

/// What goes into a header or a host's name.
fn check_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    match !name.is_empty() && name.chars().all(plain) {
        true => Ok(()),
        false => Err(invalid(format!(
            "{what} is a name of letters, digits, _ and -"
        ))),
    }
}
