//! The servers that `scripts/services` runs.
#![allow(dead_code, reason = "each test takes what it needs of this")]

use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::testing::service;
use sink_s3::{S3Options, S3Sink};

/// One server: the middle of its variables, `LIFEBELT_<name>_ENDPOINT` and so on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server(pub(crate) &'static str);

pub(crate) const MINIO: Server = Server("S3");
pub(crate) const VERSITYGW: Server = Server("S3B");

impl Server {
    /// `None`, and a note, where there is no server: a test that did not run.
    pub(crate) fn there(self) -> Option<Self> {
        service(&format!("LIFEBELT_{}_ENDPOINT", self.0)).map(|_| self)
    }

    pub(crate) fn variable(self, name: &str) -> String {
        let name = format!("LIFEBELT_{}_{name}", self.0);
        std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set"))
    }

    fn options(self, bucket: &str) -> S3Options {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut random = [0; 4];
        getrandom::fill(&mut random).unwrap();
        let (random, count) = (
            u32::from_ne_bytes(random),
            COUNT.fetch_add(1, Ordering::Relaxed),
        );
        self.at(&format!("s3://{bucket}/test-{random:08x}-{count}"))
    }

    /// `url` on this server.
    pub(crate) fn at(self, url: &str) -> S3Options {
        let options = S3Sink::builder(url)
            .endpoint(self.variable("ENDPOINT"))
            .credentials(self.variable("ACCESS_KEY"), self.variable("SECRET_KEY"));
        match self.authority() {
            Some(file) => options.ca_file(file),
            None => options,
        }
    }

    /// The file of who issued its certificate, where it speaks TLS.
    pub(crate) fn authority(self) -> Option<String> {
        std::env::var(format!("LIFEBELT_{}_CA", self.0)).ok()
    }

    /// A fresh prefix of the bucket that keeps no versions.
    pub(crate) fn plain(self) -> S3Options {
        self.options(&self.variable("BUCKET"))
    }

    /// A fresh prefix of the bucket with Object Lock.
    pub(crate) fn locked(self) -> S3Options {
        self.options(&self.variable("LOCKED_BUCKET"))
            .object_lock(true)
    }
}
