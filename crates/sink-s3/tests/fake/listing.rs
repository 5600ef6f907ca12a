//! Listings of objects and of versions, in pages.

use super::sign::encode;
use super::store::{Bucket, Version, rfc3339};
use super::wire::{Reply, Request, escape, reply};

/// One line of a listing.
enum Line<'a> {
    Prefix(String),
    Version(&'a str, &'a Version, bool),
}

impl Line<'_> {
    fn place(&self) -> (String, String) {
        match self {
            // After everything under it.
            Line::Prefix(prefix) => (format!("{prefix}\u{10ffff}"), String::new()),
            Line::Version(key, version, _) => ((*key).to_owned(), version.id.clone()),
        }
    }
}

/// Source: ListObjectsV2 in the API reference. The token is the last key, which it need not be.
pub fn objects(bucket: &Bucket, request: &Request, page: usize) -> Reply {
    let url = request.parameter("encoding-type") == Some("url");
    let after = request
        .parameter("continuation-token")
        .or(request.parameter("start-after"))
        .unwrap_or_default();
    let lines = lines(bucket, request, |key, _| key > after);
    let lines: Vec<Line<'_>> = lines
        .into_iter()
        .filter(|line| match line {
            Line::Version(_, version, newest) => *newest && version.data.is_some(),
            Line::Prefix(_) => true,
        })
        .collect();
    let page = page_of(request, page);
    let mut out = format!(
        "<IsTruncated>{}</IsTruncated><KeyCount>{}</KeyCount>",
        lines.len() > page,
        lines.len().min(page)
    );
    if lines.len() > page {
        out += &format!(
            "<NextContinuationToken>{}</NextContinuationToken>",
            escape(&lines[page - 1].place().0)
        );
    }
    for line in lines.iter().take(page) {
        match line {
            Line::Prefix(prefix) => out += &common(prefix, url),
            Line::Version(key, version, _) => {
                out += &format!("<Contents>{}</Contents>", fields(key, version, url));
            }
        }
    }
    reply(200).xml(format!("<ListBucketResult>{out}</ListBucketResult>"))
}

/// Source: ListObjectVersions in the API reference. Of one key the newest comes first.
pub fn versions(bucket: &Bucket, request: &Request, page: usize) -> Reply {
    let url = request.parameter("encoding-type") == Some("url");
    let marker = request.parameter("key-marker").unwrap_or_default();
    let id = request.parameter("version-id-marker");
    let lines = lines(bucket, request, |key, version| {
        // Ids grow, and the newest comes first.
        key > marker || (key == marker && id.is_some_and(|id| version.id.as_str() < id))
    });
    let page = page_of(request, page);
    let mut out = format!("<IsTruncated>{}</IsTruncated>", lines.len() > page);
    if lines.len() > page {
        let (key, id) = lines[page - 1].place();
        out += &format!("<NextKeyMarker>{}</NextKeyMarker>", text(&key, url));
        out += &format!("<NextVersionIdMarker>{id}</NextVersionIdMarker>");
    }
    for line in lines.iter().take(page) {
        match line {
            Line::Prefix(prefix) => out += &common(prefix, url),
            Line::Version(key, version, newest) => {
                let name = match version.data {
                    Some(_) => "Version",
                    None => "DeleteMarker",
                };
                out += &format!(
                    "<{name}>{}<VersionId>{}</VersionId><IsLatest>{newest}</IsLatest></{name}>",
                    fields(key, version, url),
                    version.id
                );
            }
        }
    }
    reply(200).xml(format!("<ListVersionsResult>{out}</ListVersionsResult>"))
}

/// Everything that the prefix, the delimiter and the marker leave, in order.
fn lines<'a>(
    bucket: &'a Bucket,
    request: &Request,
    wanted: impl Fn(&str, &Version) -> bool,
) -> Vec<Line<'a>> {
    let prefix = request.parameter("prefix").unwrap_or_default();
    let delimiter = request.parameter("delimiter").filter(|d| !d.is_empty());
    let mut lines = Vec::new();
    for (key, versions) in &bucket.objects {
        let Some(rest) = key.strip_prefix(prefix) else {
            continue;
        };
        let folder = delimiter.and_then(|d| Some(&rest[..rest.find(d)? + d.len()]));
        if let Some(folder) = folder {
            let folder = format!("{prefix}{folder}");
            let known = lines
                .iter()
                .any(|line| matches!(line, Line::Prefix(known) if *known == folder));
            let shown = versions.last().is_some_and(|newest| newest.data.is_some())
                || request.parameter("versions").is_some();
            if !known
                && shown
                && versions
                    .iter()
                    .any(|version| wanted(&format!("{folder}\u{10ffff}"), version))
            {
                lines.push(Line::Prefix(folder));
            }
            continue;
        }
        let newest = versions.len() - 1;
        for (at, version) in versions.iter().enumerate().rev() {
            if wanted(key, version) {
                lines.push(Line::Version(key, version, at == newest));
            }
        }
    }
    lines
}

fn page_of(request: &Request, page: usize) -> usize {
    let asked = request.parameter("max-keys").and_then(|n| n.parse().ok());
    page.min(asked.unwrap_or(1000)).max(1)
}

fn text(key: &str, url: bool) -> String {
    if url { encode(key, true) } else { escape(key) }
}

fn common(prefix: &str, url: bool) -> String {
    format!(
        "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
        text(prefix, url)
    )
}

fn fields(key: &str, version: &Version, url: bool) -> String {
    let size = version.data.as_ref().map(|data| {
        format!(
            "<ETag>{}</ETag><Size>{}</Size><StorageClass>STANDARD</StorageClass>",
            escape(&version.etag),
            data.len()
        )
    });
    format!(
        "<Key>{}</Key><LastModified>{}</LastModified>{}",
        text(key, url),
        rfc3339(version.modified),
        size.unwrap_or_default()
    )
}
