//! Every promise of a sink, kept by two servers with and without versions.

#![allow(clippy::unwrap_used, reason = "a failing fixture fails its test")]

mod common;

use backup_core::testing::sink::SinkFixture;
use common::{MINIO, Server, VERSITYGW};
use sink_s3::{Checksum, S3Options};

fn fixture(server: Server, options: impl Fn(Server) -> S3Options) -> SinkFixture {
    let Some(server) = server.there() else {
        return SinkFixture::missing("no server");
    };
    let sink = options(server).build().unwrap();
    SinkFixture::new(sink).secret(server.variable("SECRET_KEY"))
}

backup_core::testing::sink!(minio, async { fixture(MINIO, Server::plain) });
backup_core::testing::sink!(minio_locked, async { fixture(MINIO, Server::locked) });
backup_core::testing::sink!(minio_crc64, async {
    fixture(MINIO, |server| server.plain().checksum(Checksum::Crc64Nvme))
});
backup_core::testing::sink!(versitygw, async { fixture(VERSITYGW, Server::plain) });
backup_core::testing::sink!(versitygw_locked, async {
    fixture(VERSITYGW, Server::locked)
});
