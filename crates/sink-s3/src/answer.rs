//! What servers answer, as far as it is read: "Actions" of the Amazon S3 API Reference.

use serde::Deserialize;

/// `CreateMultipartUpload`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Started {
    pub(crate) upload_id: String,
}

/// `ListObjectsV2` and `ListObjectVersions`, which differ in few words.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Listing {
    #[serde(rename = "Contents", alias = "Version")]
    pub(crate) objects: Vec<Listed>,
    pub(crate) common_prefixes: Vec<CommonPrefix>,
    pub(crate) is_truncated: bool,
    pub(crate) next_continuation_token: Option<String>,
    pub(crate) next_key_marker: Option<String>,
    pub(crate) next_version_id_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) last_modified: Option<String>,
    pub(crate) version_id: Option<String>,
    pub(crate) is_latest: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CommonPrefix {
    pub(crate) prefix: String,
}

/// `ListMultipartUploads`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Uploads {
    #[serde(rename = "Upload")]
    pub(crate) uploads: Vec<Unfinished>,
    pub(crate) is_truncated: bool,
    pub(crate) next_key_marker: Option<String>,
    pub(crate) next_upload_id_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Unfinished {
    pub(crate) key: String,
    pub(crate) upload_id: String,
    pub(crate) initiated: Option<String>,
}

/// `GetBucketVersioning`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Versioning {
    pub(crate) status: Option<String>,
}

/// `GetObjectLockConfiguration`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ObjectLock {
    pub(crate) object_lock_enabled: Option<String>,
}

/// `GetBucketLifecycleConfiguration`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Lifecycle {
    #[serde(rename = "Rule")]
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Rule {
    #[serde(rename = "ID")]
    pub(crate) id: Option<String>,
    pub(crate) status: String,
    pub(crate) prefix: Option<String>,
    pub(crate) filter: Option<Filter>,
    pub(crate) expiration: Option<Expiration>,
    pub(crate) noncurrent_version_expiration: Option<Noncurrent>,
    pub(crate) abort_incomplete_multipart_upload: Option<Abort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Filter {
    pub(crate) prefix: Option<String>,
    pub(crate) and: Option<Box<Filter>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Expiration {
    pub(crate) days: Option<u32>,
    pub(crate) date: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Noncurrent {
    pub(crate) noncurrent_days: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Abort {
    pub(crate) days_after_initiation: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_delete_markers_may_alternate() {
        let listing: Listing = quick_xml::de::from_str(
            "<ListVersionsResult><IsTruncated>false</IsTruncated>\
             <DeleteMarker><Key>a</Key><VersionId>3</VersionId><IsLatest>true</IsLatest></DeleteMarker>\
             <Version><Key>a</Key><VersionId>2</VersionId><IsLatest>false</IsLatest><Size>5</Size></Version>\
             <DeleteMarker><Key>a</Key><VersionId>1</VersionId><IsLatest>false</IsLatest></DeleteMarker>\
             <Version><Key>b</Key><VersionId>4</VersionId><IsLatest>true</IsLatest><Size>6</Size></Version>\
             <CommonPrefixes><Prefix>c/</Prefix></CommonPrefixes></ListVersionsResult>",
        )
        .unwrap();
        let seen: Vec<_> = listing
            .objects
            .iter()
            .map(|o| (o.key.as_str(), o.size))
            .collect();
        assert_eq!(seen, [("a", 5), ("b", 6)]);
        assert_eq!(listing.common_prefixes[0].prefix, "c/");
    }
}
