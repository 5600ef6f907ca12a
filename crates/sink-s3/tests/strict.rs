//! The strict server refuses what AWS refuses: shown for each rule, so that a sink which passes
//! there has passed something.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fake::client::{Answer, Call, Client, call};
use fake::{Fake, LOCKED, PLAIN};
use sha2::{Digest, Sha256};

mod fake;

async fn ask(fake: &Fake, text: &str) -> Answer {
    fake.client().send(call(text)).await
}

async fn refused(client: Client, call: Call, status: u16, code: &str) {
    let name = format!("{} {}", call.method, call.path);
    let answer = client.send(call).await;
    let found = (answer.status, answer.code());
    assert_eq!(
        found,
        (status, code.to_owned()),
        "{name}: {}",
        answer.text()
    );
}

fn summed(call: Call) -> Call {
    let sum = STANDARD.encode(Sha256::digest(&call.body));
    call.header("x-amz-checksum-sha256", &sum)
}

fn locked(call: Call) -> Call {
    call.header("x-amz-object-lock-mode", "COMPLIANCE").header(
        "x-amz-object-lock-retain-until-date",
        "2099-01-01T00:00:00Z",
    )
}

#[tokio::test]
async fn signatures_are_verified_in_full() {
    let fake = Fake::start().await;
    let put = || call("PUT /plain/a b+ü?x=1%202").body("x");
    assert_eq!(fake.client().send(put()).await.status, 200);

    let mut client = fake.client();
    client.keys.secret.push('x');
    refused(client, put(), 403, "SignatureDoesNotMatch").await;
    let mut client = fake.client();
    client.keys.access.push('x');
    refused(client, put(), 403, "InvalidAccessKeyId").await;
    let mut client = fake.client();
    client.region = "eu-west-1".to_owned();
    refused(client, put(), 400, "AuthorizationHeaderMalformed").await;

    let mut unsigned = put();
    unsigned
        .unsigned
        .insert("x-amz-meta-a", "b".parse().unwrap());
    refused(fake.client(), unsigned, 403, "AccessDenied").await;
    let wrong_hash = put().header("x-amz-content-sha256", &"0".repeat(64));
    refused(fake.client(), wrong_hash, 400, "XAmzContentSHA256Mismatch").await;

    for seconds in [-1000, 1000] {
        fake.set_ahead(seconds);
        refused(fake.client(), put(), 403, "RequestTimeTooSkewed").await;
    }
    fake.set_ahead(800);
    assert_eq!(fake.client().send(put()).await.status, 200);
    fake.set_ahead(0);

    let tokenless = fake.client();
    fake.use_token("token");
    assert_eq!(fake.client().send(put()).await.status, 200);
    refused(tokenless, put(), 400, "InvalidToken").await;
    fake.expire();
    refused(fake.client(), put(), 400, "ExpiredToken").await;
}

#[tokio::test]
async fn checksums_are_compared_and_demanded() {
    let fake = Fake::start().await;
    let client = || fake.client();
    let wrong = call("PUT /plain/a")
        .body("x")
        .header("x-amz-checksum-sha256", &STANDARD.encode([0; 32]));
    refused(client(), wrong, 400, "BadDigest").await;
    let wrong = call("PUT /plain/a")
        .body("x")
        .header("content-md5", &STANDARD.encode([0; 16]));
    refused(client(), wrong, 400, "BadDigest").await;
    let put = || call("PUT /locked/a").body("x");
    refused(client(), locked(put()), 400, "InvalidRequest").await;
    assert_eq!(client().send(locked(summed(put()))).await.status, 200);
    fake.set_default_lock("COMPLIANCE", 1);
    refused(client(), put(), 400, "InvalidRequest").await;
    let upload = ask(&fake, "POST /locked/a?uploads").await;
    let upload = upload.all("UploadId").pop().unwrap();
    let part = call(&format!("PUT /locked/a?partNumber=1&uploadId={upload}"));
    refused(client(), part, 400, "InvalidRequest").await;
    let delete = call("POST /locked?delete").body("<Delete/>");
    refused(client(), delete, 400, "InvalidRequest").await;
    let nowhere = locked(summed(call("PUT /plain/a").body("x")));
    refused(client(), nowhere, 400, "InvalidRequest").await;
}

#[tokio::test]
async fn versions_markers_and_locks() {
    let fake = Fake::start().await;
    let put = locked(summed(call("PUT /locked/a").body("first")));
    let first = fake.client().send(put).await;
    let first = first.header("x-amz-version-id").unwrap().to_owned();
    let over = call("PUT /locked/a").body("second");
    assert_eq!(fake.client().send(over).await.status, 200);
    assert_eq!(ask(&fake, "DELETE /locked/a").await.status, 204);
    let hidden = ask(&fake, "GET /locked/a").await;
    assert_eq!(hidden.status, 404);
    assert_eq!(hidden.header("x-amz-delete-marker"), Some("true"));
    let back = ask(&fake, &format!("GET /locked/a?versionId={first}")).await;
    assert_eq!(back.text(), "first");
    let delete = format!("DELETE /locked/a?versionId={first}");
    refused(fake.client(), call(&delete), 403, "AccessDenied").await;
    let all = ask(&fake, "GET /locked?versions").await;
    assert_eq!(all.all("VersionId").len(), 3);
    assert_eq!(all.all("DeleteMarker").len(), 1);
    assert_eq!(
        ask(&fake, "GET /locked?list-type=2").await.all("Key").len(),
        0
    );
    // `If-None-Match: *` looks at what is visible only: it is no guard against hiding.
    let create = || call("PUT /locked/a").body("x").header("if-none-match", "*");
    assert_eq!(fake.client().send(create()).await.status, 200);
    refused(fake.client(), create(), 412, "PreconditionFailed").await;
}

#[tokio::test]
async fn uploads_are_completed_only_whole() {
    let fake = Fake::start().await;
    let upload = ask(&fake, "POST /plain/a?uploads").await;
    let upload = upload.all("UploadId").pop().unwrap();
    let mut tags = Vec::new();
    for number in 1..=2 {
        let part = call(&format!(
            "PUT /plain/a?partNumber={number}&uploadId={upload}"
        ));
        let part = fake.client().send(part.body("small")).await;
        tags.push(part.header("etag").unwrap().to_owned());
    }
    let complete = |parts: &[(usize, &str)]| {
        let parts: String = parts
            .iter()
            .map(|(n, tag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>"))
            .collect();
        call(&format!("POST /plain/a?uploadId={upload}")).body(format!(
            "<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        ))
    };
    let (one, two) = (tags[0].as_str(), tags[1].as_str());
    for (parts, code) in [
        (&[][..], "MalformedXML"),
        (&[(2, two), (1, one)][..], "InvalidPartOrder"),
        (&[(1, "\"0\"")][..], "InvalidPart"),
        (&[(3, one)][..], "InvalidPart"),
        (&[(1, one), (2, two)][..], "EntityTooSmall"),
    ] {
        refused(fake.client(), complete(parts), 400, code).await;
    }
    assert_eq!(ask(&fake, "GET /plain/a").await.status, 404);
    assert_eq!(fake.uploads(), 1);
    let done = fake.client().send(complete(&[(1, one)])).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(fake.uploads(), 0);
    refused(fake.client(), complete(&[(1, one)]), 404, "NoSuchUpload").await;
}

#[tokio::test]
async fn other_regions_are_redirected_to() {
    let fake = Fake::start().await;
    let answer = ask(&fake, "GET /elsewhere/a").await;
    assert_eq!(answer.status, 301);
    assert_eq!(answer.header("x-amz-bucket-region"), Some("eu-central-1"));
}

#[tokio::test]
async fn listings_come_in_pages() {
    let fake = Fake::start().await;
    fake.set_page(2);
    for key in ["a/1", "a/2", "b", "c/1", "d"] {
        let put = call(&format!("PUT /{PLAIN}/{key}"));
        assert_eq!(fake.client().send(put).await.status, 200);
        let put = call(&format!("PUT /{LOCKED}/{key}"));
        assert_eq!(fake.client().send(put).await.status, 200);
    }
    let (mut pages, mut keys, mut token) = (0, Vec::new(), String::new());
    loop {
        let page = ask(
            &fake,
            &format!("GET /{PLAIN}?list-type=2&delimiter=/{token}"),
        )
        .await;
        pages += 1;
        keys.extend(page.all("Key"));
        keys.extend(page.all("Prefix"));
        match page.all("NextContinuationToken").pop() {
            Some(next) => token = format!("&continuation-token={next}"),
            None => break,
        }
    }
    assert_eq!(
        (pages, keys),
        (2, ["b", "a/", "d", "c/"].map(String::from).into())
    );
}
