use crate::fake::client::{Answer, Call, Client};
use crate::place::{Place, days, with_body};

/// Every way we know to lose, shorten, hide or expose backups, or to get at the server.
pub(crate) fn calls(place: &Place) -> Vec<(&'static str, Call)> {
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let several = |version: &str| {
        format!(
            "<Delete><Object><Key>kept</Key>{version}</Object><Object><Key>free</Key></Object></Delete>"
        )
    };
    let version = format!("<VersionId>{}</VersionId>", place.kept);
    let retention = |mode: &str, until: &str| {
        format!(
            "<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"
        )
    };
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":["*"]}},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::{}/*"]}}]}}"#,
        place.bucket
    );
    let expiry = "<LifecycleConfiguration><Rule><ID>x</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
    let replication = "<ReplicationConfiguration><Role></Role><Rule><ID>x</ID><Status>Enabled</Status><Priority>1</Priority><DeleteMarkerReplication><Status>Disabled</Status></DeleteMarkerReplication><Filter><Prefix></Prefix></Filter><Destination><Bucket>arn:aws:s3:::lifebelt</Bucket></Destination></Rule></ReplicationConfiguration>";
    let encryption = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
    let bypass = |call: Call| call.header("x-amz-bypass-governance-retention", "true");
    let plain = |text: &'static str| (text, place.call(text));
    let body = |text: &'static str, body: &str| (text, with_body(place.call(text), body));
    vec![
        plain("DELETE /{B}/free"),
        plain("DELETE /{B}/kept"),
        plain("DELETE /{B}/absent"),
        plain("DELETE /{B}/free?versionId={F}"),
        plain("DELETE /{B}/kept?versionId={K}"),
        plain("DELETE /{B}/governed?versionId={G}"),
        plain("DELETE /{B}/held?versionId={H}"),
        (
            "delete under compliance, bypassed",
            bypass(place.call("DELETE /{B}/kept?versionId={K}")),
        ),
        (
            "delete under governance, bypassed",
            bypass(place.call("DELETE /{B}/governed?versionId={G}")),
        ),
        body("POST /{B}?delete", &several("")),
        body("POST /{B}?delete&versions", &several(&version)),
        (
            "delete several, bypassed",
            bypass(with_body(
                place.call("POST /{B}?delete"),
                &several(&version),
            )),
        ),
        body(
            "PUT /{B}/kept?retention&versionId={K}",
            &retention("COMPLIANCE", &days(1)),
        ),
        (
            "from compliance to governance, bypassed",
            bypass(
                body(
                    "PUT /{B}/kept?retention&versionId={K}",
                    &retention("GOVERNANCE", &days(10)),
                )
                .1,
            ),
        ),
        body(
            "PUT /{B}/governed?retention&versionId={G}",
            &retention("GOVERNANCE", &days(1)),
        ),
        (
            "shorten governance, bypassed",
            bypass(
                body(
                    "PUT /{B}/governed?retention&versionId={G}",
                    &retention("GOVERNANCE", &days(1)),
                )
                .1,
            ),
        ),
        (
            "end compliance, bypassed",
            bypass(
                body(
                    "PUT /{B}/kept?retention&versionId={K}",
                    "<Retention></Retention>",
                )
                .1,
            ),
        ),
        body(
            "PUT /{B}/held?legal-hold&versionId={H}",
            "<LegalHold><Status>OFF</Status></LegalHold>",
        ),
        body(
            "PUT /{B}/free?legal-hold",
            "<LegalHold><Status>ON</Status></LegalHold>",
        ),
        body(
            "PUT /{B}?versioning",
            "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
        ),
        body("PUT /{B}?lifecycle", expiry),
        plain("DELETE /{B}?lifecycle"),
        body("PUT /{B}?policy", &policy),
        plain("DELETE /{B}?policy"),
        body(
            "PUT /{B}?object-lock",
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
        ),
        body("PUT /{B}?replication", replication),
        plain("DELETE /{B}?replication"),
        body("PUT /{B}?encryption", encryption),
        plain("DELETE /{B}?encryption"),
        body("PUT /{B}?tagging", tags),
        plain("DELETE /{B}?tagging"),
        body(
            "PUT /{B}?notification",
            "<NotificationConfiguration></NotificationConfiguration>",
        ),
        body("PUT /{B}/free?tagging", tags),
        plain("DELETE /{B}/free?tagging"),
        (
            "put under legal hold",
            with_body(place.call("PUT /{B}/new"), "x").header("x-amz-object-lock-legal-hold", "ON"),
        ),
        (
            "copy from another bucket",
            place
                .call("PUT /{B}/new")
                .header("x-amz-copy-source", "/lifebelt/x"),
        ),
        plain("DELETE /{B}"),
        (
            "delete bucket by force",
            place
                .call("DELETE /{B}")
                .header("x-minio-force-delete", "true"),
        ),
        plain("PUT /{B}-more"),
        body("PUT /lifebelt/x", "x"),
        plain("GET /lifebelt?list-type=2"),
        plain("GET /minio/admin/v3/info"),
        plain("GET /minio/admin/v3/list-users"),
        plain("GET /minio/admin/v3/list-canned-policies"),
        plain("PUT /minio/admin/v3/set-user-status?accessKey=x&status=disabled"),
        plain("DELETE /minio/admin/v3/remove-canned-policy?name=writer"),
        plain("GET /minio/admin/v3/config"),
        plain("POST /minio/admin/v3/service?action=stop"),
    ]
}

/// Refused for want of the right, and not for another reason.
pub(crate) fn refused(answer: &Answer) -> bool {
    let text = answer.text();
    let denied = !answer.all("Code").is_empty()
        && answer.all("Code").iter().all(|code| code == "AccessDenied");
    match answer.status {
        403 => denied || text.contains(r#""Code":"AccessDenied""#),
        // Deleting several: the verdict is per object.
        200 => answer.all("Deleted").is_empty() && denied,
        // What the lock itself refuses, whoever asks, has this answer on MinIO.
        400 => text.contains("WORM protected"),
        _ => false,
    }
}

/// Each of these is refused to `client`, and none changes anything.
pub(crate) async fn assert_refused(place: &Place, client: &Client, calls: Vec<(&str, Call)>) {
    let before = place.state().await;
    for (name, call) in calls {
        let answer = client.send(call).await;
        assert!(
            refused(&answer),
            "{name}: {} {}",
            answer.status,
            answer.text()
        );
    }
    assert_eq!(place.state().await, before);
}
