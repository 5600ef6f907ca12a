//! Who asks, and whom: what AWS's own tools find in the environment.

use std::sync::Arc;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use object_store::aws::{
    AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential, AwsCredentialProvider,
};
use object_store::{
    BackoffConfig, Certificate, ClientOptions, RetryConfig, StaticCredentialProvider,
};

use crate::profile::Profile;

/// The value of a variable of the environment, if it has one.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where `object_store` looks for web identity, containers and instances.
const CHAIN: [Key; 9] = [
    Key::WebIdentityTokenFile,
    Key::RoleArn,
    Key::RoleSessionName,
    Key::StsEndpoint,
    Key::ContainerCredentialsRelativeUri,
    Key::ContainerCredentialsFullUri,
    Key::ContainerAuthorizationTokenFile,
    Key::MetadataEndpoint,
    Key::ImdsV1Fallback,
];

/// The variables of the environment, and the profile that they name.
pub(crate) struct Environment<'a> {
    variable: Lookup<'a>,
    profile: Profile,
}

impl<'a> Environment<'a> {
    pub(crate) fn read(variable: Lookup<'a>) -> Result<Self> {
        let profile = Profile::read(variable)?;
        Ok(Self { variable, profile })
    }

    /// The first of `variables` that is set.
    fn first<const N: usize>(&self, variables: [&str; N]) -> Option<String> {
        variables.into_iter().find_map(self.variable)
    }

    pub(crate) fn region(&self) -> Option<String> {
        self.first(["AWS_REGION", "AWS_DEFAULT_REGION"])
            .or_else(|| self.profile.get("region"))
    }

    pub(crate) fn endpoint(&self) -> Option<String> {
        self.first(["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
            .or_else(|| self.profile.endpoint())
    }

    pub(crate) fn ca_file(&self) -> Option<String> {
        self.first(["AWS_CA_BUNDLE"])
            .or_else(|| self.profile.get("ca_bundle"))
    }

    /// The nearest of: an access key among the variables, one in the profile, web identity, the
    /// container, the instance. That is the order of AWS's SDK for Rust; others differ in where web
    /// identity stands.
    pub(crate) fn credentials(
        &self,
        bucket: &str,
        region: &str,
        roots: Vec<Certificate>,
    ) -> Result<AwsCredentialProvider> {
        let names = [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
        ];
        let keys = match keys(names, self.variable, "")? {
            Some(keys) => Some(keys),
            None => self.profile.keys()?,
        };
        if let Some(keys) = keys {
            return Ok(constant(keys));
        }
        let client = ClientOptions::new();
        let client = roots
            .into_iter()
            .fold(client, ClientOptions::with_root_certificate);
        let aws = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_client_options(client)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 2,
                retry_timeout: Duration::from_secs(30),
            });
        let aws = CHAIN.into_iter().fold(aws, |aws, key| {
            match (self.variable)(&key.as_ref().to_uppercase()) {
                Some(value) => aws.with_config(key, value),
                None => aws,
            }
        });
        let aws = aws.build().map_err(|error| {
            let message = "the credentials that the environment tells of cannot be had";
            Error::new(ErrorKind::Invalid, message).with_source(error)
        })?;
        Ok(aws.credentials().clone())
    }
}

pub(crate) fn constant(keys: AwsCredential) -> AwsCredentialProvider {
    Arc::new(StaticCredentialProvider::new(keys))
}

/// An access key, its secret and perhaps a token, as `get` has them by their `names`. Half of that
/// is an error: the other half would be somebody else's.
pub(crate) fn keys(
    names: [&str; 3],
    get: impl Fn(&str) -> Option<String>,
    place: &str,
) -> Result<Option<AwsCredential>> {
    let [id, secret, token] = names;
    let half = |there: &str, missing: &str| {
        let message = format!("{there} is set{place} and {missing} is not: set both, or neither");
        Err(Error::new(ErrorKind::Invalid, message))
    };
    match names.map(get) {
        [Some(key_id), Some(secret_key), token] => Ok(Some(AwsCredential {
            key_id,
            secret_key,
            token,
        })),
        [Some(_), None, _] => half(id, secret),
        [None, Some(_), _] => half(secret, id),
        [None, None, Some(_)] => half(token, id),
        [None, None, None] => Ok(None),
    }
}
