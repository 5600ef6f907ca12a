//! Uploads in parts: bounded in bytes, completed on a condition, aborted when anything fails.

use std::fmt::Write;
use std::pin::pin;

use backup_core::{Error, ErrorKind, Result, undo};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Method;

use crate::answer::Started;
use crate::client::Request;
use crate::failure::Failure;
use crate::part::Part;
use crate::put::{Cut, Put, Stored, version};
use crate::sink::text;
use crate::{Checksum, S3Sink};

/// Parts on their way at once, besides the one that fills.
pub(crate) const WINDOW: usize = 2;

/// "Amazon S3 multipart upload limits".
const MOST_PARTS: u32 = 10_000;

/// An upload that is aborted unless it ended.
struct Upload {
    sink: S3Sink,
    path: String,
    id: String,
    ended: bool,
}

/// A part that the server has.
struct Sent {
    number: u32,
    etag: String,
    checksum: String,
}

impl Put<'_> {
    /// Stores `first` and what follows it.
    pub(crate) async fn in_parts(&self, first: Part, mut cut: Cut) -> Result<Stored> {
        // The completion decides; asking first saves a whole upload.
        if self.sink.head(&self.path, None).await.is_ok() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("object `{}` exists in {}", self.key, self.sink),
            ));
        }
        let mut upload = self.start().await?;
        let sent = match self.send(&upload, first, &mut cut).await {
            Ok(sent) => sent,
            Err(error) => {
                upload.abort().await;
                return Err(error);
            }
        };
        let checksum = cut.whole.finish();
        let version = match upload.complete(&sent, &checksum).await {
            Ok(version) => version,
            Err(failure) => {
                // Whatever became of it is settled after this, so that one look is enough.
                upload.abort().await;
                let failure = Failure {
                    unsure: failure.unsure || failure.is_missing(),
                    ..failure
                };
                self.settle(failure).await?
            }
        };
        Ok(Stored {
            version,
            len: cut.len,
            checksum,
        })
    }

    async fn start(&self) -> Result<Upload> {
        let (algorithm, kind) = match self.sink.0.checksum {
            Checksum::Sha256 => ("SHA256", "COMPOSITE"),
            Checksum::Crc64Nvme => ("CRC64NVME", "FULL_OBJECT"),
        };
        let request = Request::object("s3:PutObject", Method::POST, &self.path)
            .query("uploads", "")
            .header("x-amz-checksum-algorithm", algorithm)
            .header("x-amz-checksum-type", kind)
            .headers(self.headers());
        let started = self.sink.0.client.document::<Started>(&request).await;
        Ok(Upload {
            sink: self.sink.clone(),
            path: self.path.clone(),
            id: started.map_err(|failure| self.failed(failure))?.upload_id,
            ended: false,
        })
    }

    async fn send(&self, upload: &Upload, first: Part, cut: &mut Cut) -> Result<Vec<Sent>> {
        let mut sending = FuturesUnordered::new();
        let mut sent = Vec::new();
        let mut part = first;
        let mut more = true;
        for number in 1.. {
            if number > MOST_PARTS {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "put object `{}` in {}: it is longer than {MOST_PARTS} parts: raise \
                         part_size",
                        self.key, self.sink
                    ),
                ));
            }
            while sending.len() == WINDOW
                && let Some(done) = sending.next().await
            {
                sent.push(done?);
            }
            cut.whole.part(&part);
            sending.push(async move {
                let done = upload.send(number, part).await;
                done.map_err(|failure| self.failed(failure))
            });
            if !more {
                break;
            }
            part = Part::default();
            let mut filled = pin!(cut.fill(&mut part));
            more = loop {
                tokio::select! {
                    more = &mut filled => break more?,
                    Some(done) = sending.next() => sent.push(done?),
                }
            };
        }
        while let Some(done) = sending.next().await {
            sent.push(done?);
        }
        sent.sort_by_key(|part| part.number);
        Ok(sent)
    }
}

impl Upload {
    async fn send(&self, number: u32, part: Part) -> Result<Sent, Failure> {
        let settings = &*self.sink.0;
        let checksum = part.checksum(settings.checksum);
        let request = Request::object("s3:PutObject", Method::PUT, &self.path)
            .query("partNumber", number.to_string())
            .query("uploadId", &self.id)
            .header(settings.checksum.header(), &checksum)
            .part(&part);
        drop(part);
        let (headers, _) = settings.client.fetch(&request).await?;
        let etag = text(&headers, "etag").ok_or_else(|| {
            Failure::nonsense("s3:PutObject", "a part was taken and got no entity tag")
        })?;
        Ok(Sent {
            number,
            etag: etag.to_owned(),
            checksum,
        })
    }

    /// Makes the object visible unless its key is taken.
    async fn complete(
        &mut self,
        parts: &[Sent],
        checksum: &str,
    ) -> Result<Option<String>, Failure> {
        let settings = &*self.sink.0;
        let tag = match settings.checksum {
            Checksum::Sha256 => "ChecksumSHA256",
            Checksum::Crc64Nvme => "ChecksumCRC64NVME",
        };
        let mut text = String::from("<CompleteMultipartUpload>");
        for part in parts {
            let etag = quick_xml::escape::escape(&part.etag);
            let (number, checksum) = (part.number, &part.checksum);
            let _ = write!(
                text,
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>\
                 <{tag}>{checksum}</{tag}></Part>"
            );
        }
        text.push_str("</CompleteMultipartUpload>");
        let mut request = Request::object("s3:PutObject", Method::POST, &self.path)
            .query("uploadId", &self.id)
            .header("if-none-match", "*")
            .document(text)
            .patiently();
        if settings.checksum == Checksum::Crc64Nvme {
            request = request
                .header(settings.checksum.header(), checksum)
                .header("x-amz-checksum-type", "FULL_OBJECT");
        }
        let (headers, _) = settings.client.fetch(&request).await?;
        self.ended = true;
        Ok(version(&headers))
    }

    async fn abort(&mut self) {
        abort(&self.sink, &self.path, &self.id).await;
        self.ended = true;
    }
}

impl Drop for Upload {
    /// Nobody waits for it: what this misses is taken by a sweep.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (sink, path, id) = (self.sink.clone(), self.path.clone(), self.id.clone());
        undo(async move { abort(&sink, &path, &id).await });
    }
}

async fn abort(sink: &S3Sink, path: &str, id: &str) {
    if let Err(failure) = sink.abort(path, id).await {
        let error = failure.into_error(format_args!("abort an upload of `{path}`"), sink);
        tracing::info!(%sink, %error, "an upload stays for the next sweep");
    }
}

impl S3Sink {
    /// Ends an upload and frees what it held. One that is gone is no failure.
    pub(crate) async fn abort(&self, path: &str, id: &str) -> Result<(), Failure> {
        let request =
            Request::object("s3:AbortMultipartUpload", Method::DELETE, path).query("uploadId", id);
        match self.0.client.fetch(&request).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_missing() => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}
