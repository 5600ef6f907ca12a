use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use backup_core::{
    ByteStream, CHUNK, Capabilities, Clock, Error, ErrorKind, Key, Locator, Object, Publication,
    PutOptions, Result, Sink, StreamReader, Swept, SystemClock, async_trait, blocking, free_space,
};
use futures::stream::BoxStream;
use rustix::fs::FileType;

use crate::folder::{Folder, is_absent};
use crate::temp::{self, Temp};
use crate::{FsSink, list};

/// A delete may remove the folder that a put is about to use; it does not do so forever.
const TRIES: usize = 64;

#[async_trait]
impl Sink for FsSink {
    async fn put(&self, key: &Key, data: ByteStream, options: &PutOptions) -> Result<Object> {
        if options.retain_until.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a folder cannot lock objects",
            ));
        }
        let (sink, key) = (self.clone(), key.clone());
        data.consume(move |data, publication| sink.write(&key, data, publication))
            .await
    }

    async fn get(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        let (sink, at) = (self.clone(), at.clone());
        blocking(move || sink.read(&at, range)).await
    }

    async fn stat(&self, at: &Locator) -> Result<Object> {
        let (sink, at) = (self.clone(), at.clone());
        blocking(move || {
            let key = sink.unversioned(&at)?;
            let found = sink.existing_root(key).and_then(|root| {
                let stat = root
                    .parent_of(key)
                    .and_then(|parent| parent.stat(key.name()));
                stat.map_err(|e| sink.object_failed("stat", key, e))
            })?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => Ok(list::object(key.clone(), &found)),
                FileType::Directory => Err(sink.missing(key)),
                _ => Err(sink.no_object(key)),
            }
        })
        .await
    }

    async fn delete(&self, at: &Locator) -> Result<()> {
        let (sink, at) = (self.clone(), at.clone());
        blocking(move || {
            let key = sink.unversioned(&at)?;
            match sink.root()? {
                Some(root) => root
                    .remove(key)
                    .map_err(|e| sink.object_failed("delete", key, e)),
                None => Ok(()),
            }
        })
        .await
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        let (sink, prefix) = (self.clone(), prefix.cloned());
        list::on_thread(move |found| list::objects(&sink, prefix.as_ref(), found))
    }

    fn children(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<String>> {
        let (sink, prefix) = (self.clone(), prefix.cloned());
        list::on_thread(move |found| list::children(&sink, prefix.as_ref(), found))
    }

    fn versions(&self, prefix: Option<&Key>) -> BoxStream<'_, Result<Object>> {
        self.list(prefix)
    }

    async fn sweep(&self, older_than: Duration) -> Result<Swept> {
        let sink = self.clone();
        blocking(move || match sink.root()? {
            Some(root) => temp::sweep(&root, older_than, SystemClock.now())
                .map_err(|e| sink.failed("sweep", e)),
            None => Ok(Swept::default()),
        })
        .await
    }

    async fn free_space(&self) -> Result<Option<u64>> {
        let path = self.path.clone();
        blocking(move || Ok(free_space(&path))).await
    }

    fn capabilities(&self) -> Capabilities {
        // What `ByteStream::consume` holds.
        Capabilities::new(8 * CHUNK).with_conditional_put()
    }
}

impl FsSink {
    fn write(
        &self,
        key: &Key,
        data: &mut StreamReader,
        publication: &Publication,
    ) -> Result<Object> {
        let failed = |e| self.object_failed("put", key, e);
        let root = Folder::create_root(&self.path).map_err(failed)?;
        // The rename decides; asking first saves a whole upload.
        if root
            .parent_of(key)
            .and_then(|parent| parent.stat(key.name()))
            .is_ok()
        {
            return Err(self.taken(key));
        }
        let mut temp = Temp::create(&root, key.name()).map_err(failed)?;
        while let Some(chunk) = data.next_chunk()? {
            temp.file.write_all(&chunk).map_err(failed)?;
        }
        temp.file.sync_all().map_err(failed)?;
        let known = rustix::fs::fstat(&temp.file).map_err(|e| failed(e.into()))?;

        let undo = {
            let (root, key) = (self.clone(), key.clone());
            move || {
                let removed = Folder::open_root(&root.path).and_then(|root| root.remove(&key));
                if let Err(error) = removed {
                    tracing::info!(sink = %root, %key, %error, "an abandoned object stays for the next sweep");
                }
            }
        };
        let folders = publication.publish(|| self.publish(&root, &mut temp, key), undo)?;
        for folder in folders.iter().rev() {
            folder.sync().map_err(failed)?;
        }
        Ok(list::object(key.clone(), &known))
    }

    /// Gives `temp` its name. Returns the folders that lead there, the root first.
    fn publish(&self, root: &Folder, temp: &mut Temp, key: &Key) -> Result<Vec<Folder>> {
        let mut tries = 0;
        loop {
            let done = root.ensure_parents_of(key).and_then(|folders| {
                match folders.last() {
                    Some(parent) => temp.publish(parent, key.name())?,
                    None => temp.publish(root, key.name())?,
                }
                Ok(folders)
            });
            match done {
                Ok(folders) => return Ok(folders),
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries < TRIES => tries += 1,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(self.taken(key)),
                Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                    let message =
                        format!("put object `{key}` in {self}: a parent of it is no folder");
                    return Err(Error::new(ErrorKind::Invalid, message));
                }
                Err(e) => return Err(self.object_failed("put", key, e)),
            }
        }
    }

    fn read(&self, at: &Locator, range: Option<Range<u64>>) -> Result<ByteStream> {
        let key = self.unversioned(at)?;
        let failed = |e| self.object_failed("get", key, e);
        let parent = self.existing_root(key)?.parent_of(key).map_err(failed)?;
        let file = parent.open_file(key.name()).map_err(failed)?;
        let known = file.metadata().map_err(failed)?;
        if known.is_dir() {
            return Err(self.missing(key));
        } else if !known.is_file() {
            return Err(self.no_object(key));
        }
        let range = range.unwrap_or(0..known.len());
        if range.start > range.end || range.end > known.len() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "get object `{key}`: bytes {range:?} of {} do not exist",
                    known.len()
                ),
            ));
        }
        let mut body = Body {
            file,
            range,
            key: key.clone(),
            sink: self.clone(),
        };
        let len = body.range.end - body.range.start;
        if len <= CHUNK as u64 {
            // No thread for what fits into one chunk.
            let mut all = Vec::with_capacity(len as usize);
            body.read_to_end(&mut all)?;
            return Ok(ByteStream::from_bytes(all));
        }
        Ok(ByteStream::from_reader("sink-fs get", body))
    }

    /// The root; `None` where nothing was ever put.
    pub(crate) fn root(&self) -> Result<Option<Folder>> {
        match Folder::open_root(&self.path) {
            Ok(root) => Ok(Some(root)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("open", e)),
        }
    }

    fn existing_root(&self, key: &Key) -> Result<Folder> {
        self.root()?.ok_or_else(|| self.missing(key))
    }

    fn unversioned<'a>(&self, at: &'a Locator) -> Result<&'a Key> {
        match at.version {
            None => Ok(&at.key),
            Some(_) => Err(Error::new(
                ErrorKind::Unsupported,
                "a folder keeps no versions",
            )),
        }
    }

    fn missing(&self, key: &Key) -> Error {
        Error::new(ErrorKind::NotFound, format!("no object `{key}` in {self}"))
    }

    fn taken(&self, key: &Key) -> Error {
        Error::new(
            ErrorKind::AlreadyExists,
            format!("object `{key}` exists in {self}"),
        )
    }

    fn no_object(&self, key: &Key) -> Error {
        Error::new(
            ErrorKind::Refused,
            format!("`{key}` in {self} is a link or a special file"),
        )
    }

    fn object_failed(&self, verb: &str, key: &Key, error: io::Error) -> Error {
        if verb != "put" && is_absent(&error) {
            return self.missing(key);
        }
        if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            return self.no_object(key);
        }
        self.failed(&format!("{verb} object `{key}`"), error)
    }

    pub(crate) fn failed(&self, what: &str, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Sink,
        };
        Error::new(kind, format!("{what} in {self}")).with_source(error)
    }
}

/// The bytes of a range, all of them or an error.
struct Body {
    file: File,
    range: Range<u64>,
    key: Key,
    sink: FsSink,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end - self.range.start;
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if want == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut buffer[..want], self.range.start) {
            Ok(0) => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "object `{}` in {} ends {left} bytes early",
                    self.key, self.sink
                ),
            )
            .into()),
            Ok(n) => {
                self.range.start += n as u64;
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => Err(self.sink.object_failed("get", &self.key, e).into()),
        }
    }
}
