//! A folder as a tar stream, made while it is read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use backup_core::{Error, ErrorKind};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat,
};
use rustix::io::{Errno, retry_on_intr};
use tar::EntryType;

use crate::attributes::Attributes;
use crate::counts::{Counts, show};
use crate::headers::Ready;
use crate::{Files, MAX_DEPTH, glob};

/// What a path may be long: of `PATH_MAX`, with a `/` and the end. A longer one could be written, and not
/// be extracted.
const LONGEST_PATH: usize = 4094;
/// How often something may turn into something else between two looks at it.
const TRIES: usize = 8;

/// The tar stream of a folder.
///
/// In memory are the names in the folders that lead to the current one, and one path for each
/// hard-linked file whose other names did not come yet.
pub(crate) struct Archive {
    files: Files,
    counts: Counts,
    state: State,
    /// Open folders, each within the one before.
    levels: Vec<Level>,
    /// Headers and padding on their way out.
    ready: Ready,
    body: Option<Body>,
    linked: HashMap<(u64, u64), Linked>,
    /// The root's device.
    device: u64,
}

enum State {
    Begin,
    Middle,
    End,
}

struct Level {
    folder: OwnedFd,
    /// Empty for the root, else it ends in `/`.
    path: Vec<u8>,
    names: std::vec::IntoIter<Vec<u8>>,
}

struct Body {
    file: File,
    path: Vec<u8>,
    stat: Stat,
    left: u64,
}

struct Linked {
    path: Vec<u8>,
    others: u64,
    version: Version,
}

/// Size and time of the last change. A file that was deleted leaves its number to another one.
type Version = (i64, i64, u64);

fn version(stat: &Stat) -> Version {
    (stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
}

/// What became of an attempt to archive a name.
enum Attempt {
    Done,
    /// It is something else now.
    Again,
}

impl Archive {
    pub(crate) fn new(files: Files, counts: Counts) -> Self {
        Self {
            files,
            counts,
            state: State::Begin,
            levels: Vec::new(),
            ready: Ready::default(),
            body: None,
            linked: HashMap::new(),
            device: 0,
        }
    }

    /// Prepares the next bytes; `false` when there are none.
    fn advance(&mut self) -> io::Result<bool> {
        match self.state {
            State::Begin => {
                self.begin()?;
                self.state = State::Middle;
            }
            State::Middle => {
                let Some(level) = self.levels.last_mut() else {
                    // The end of an archive is said: two empty blocks.
                    self.ready.end();
                    self.state = State::End;
                    return Ok(true);
                };
                match level.names.next() {
                    Some(name) => self.visit(&name)?,
                    None => drop(self.levels.pop()),
                }
            }
            State::End => return Ok(false),
        }
        Ok(true)
    }

    fn begin(&mut self) -> io::Result<()> {
        let path = self.files.path.clone();
        let failed = |e: Errno| {
            let message = format!("open folder {}", path.display());
            io::Error::from(Error::new(ErrorKind::Source, message).with_source(io::Error::from(e)))
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry_on_intr(|| openat(CWD, &path, flags, Mode::empty())).map_err(failed)?;
        let stat = fstat(&root).map_err(failed)?;
        self.device = stat.st_dev;
        self.header(b"./", EntryType::Directory, &stat, 0, b"");
        self.descend(root, Vec::new())
    }

    /// Lists `folder`, sorted.
    fn descend(&mut self, folder: OwnedFd, path: Vec<u8>) -> io::Result<()> {
        if self.levels.len() >= MAX_DEPTH {
            let message = format!("{} is more than {MAX_DEPTH} folders deep", self.full(&path));
            return Err(Error::new(ErrorKind::Source, message).into());
        }
        let mut names = Vec::new();
        let entries = Dir::read_from(&folder).map_err(|e| self.failed("list", &path, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.failed("list", &path, e))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        self.levels.push(Level {
            folder,
            path,
            names: names.into_iter(),
        });
        Ok(())
    }

    fn visit(&mut self, name: &[u8]) -> io::Result<()> {
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let path = [&level.path, name].concat();
        if path.len() > LONGEST_PATH {
            let message = format!("{} is too long a path for `tar`", self.full(&path));
            return Err(Error::new(ErrorKind::Source, message).into());
        }
        if self
            .files
            .exclude
            .iter()
            .any(|pattern| glob::matches(pattern, &path))
        {
            self.counts.update(|counted| counted.excluded += 1);
            return Ok(());
        }
        for _ in 0..TRIES {
            match self.attempt(name, &path) {
                Ok(Attempt::Done) => return Ok(()),
                Ok(Attempt::Again) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.counts.odd("vanished", &path);
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        let message = format!("{} keeps turning into something else", self.full(&path));
        Err(Error::new(ErrorKind::Source, message).into())
    }

    fn attempt(&mut self, name: &[u8], path: &[u8]) -> io::Result<Attempt> {
        let Some(level) = self.levels.last() else {
            return Ok(Attempt::Done);
        };
        let folder = &level.folder;
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| self.failed("look at", path, e))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(name, path, &stat),
            FileType::Directory => {
                let flags = OFlags::DIRECTORY;
                let Some((inner, stat)) = self.open(name, path, flags)? else {
                    return Ok(Attempt::Again);
                };
                let path = [path, b"/"].concat();
                self.header(&path, EntryType::Directory, &stat, 0, b"");
                if !self.files.one_file_system || stat.st_dev == self.device {
                    self.descend(inner, path)?;
                }
                Ok(Attempt::Done)
            }
            FileType::Symlink => {
                let target = match readlinkat(folder, name, Vec::new()) {
                    Ok(target) => target,
                    Err(Errno::INVAL) => return Ok(Attempt::Again),
                    Err(e) => return Err(self.failed("read link", path, e)),
                };
                self.header(path, EntryType::Symlink, &stat, 0, target.as_bytes());
                Ok(Attempt::Done)
            }
            _ => {
                self.counts.odd("skipped", path);
                Ok(Attempt::Done)
            }
        }
    }

    fn file(&mut self, name: &[u8], path: &[u8], stat: &Stat) -> io::Result<Attempt> {
        let identity = (stat.st_dev, stat.st_ino);
        if let Some(linked) = self.linked.get_mut(&identity)
            && stat.st_nlink > 1
            && linked.version == version(stat)
        {
            let first = linked.path.clone();
            linked.others -= 1;
            if linked.others == 0 {
                self.linked.remove(&identity);
            }
            self.header(path, EntryType::Link, stat, 0, &first);
            return Ok(Attempt::Done);
        }
        let Some((file, stat)) = self.open(name, path, OFlags::empty())? else {
            return Ok(Attempt::Again);
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Attempt::Again);
        }
        let others = u64::from(stat.st_nlink as u32).saturating_sub(1);
        if others > 0 {
            let linked = Linked {
                path: path.to_vec(),
                others,
                version: version(&stat),
            };
            self.linked.insert((stat.st_dev, stat.st_ino), linked);
        }
        let left = u64::try_from(stat.st_size).unwrap_or_default();
        self.header(path, EntryType::Regular, &stat, left, b"");
        self.counts.update(|counted| counted.bytes += left);
        self.body = Some(Body {
            file: file.into(),
            path: path.to_vec(),
            stat,
            left,
        });
        Ok(Attempt::Done)
    }

    /// `None`: it is something else now. Never follows a link, never waits for a FIFO.
    fn open(&self, name: &[u8], path: &[u8], flags: OFlags) -> io::Result<Option<(OwnedFd, Stat)>> {
        let Some(level) = self.levels.last() else {
            return Ok(None);
        };
        let flags = flags
            | OFlags::RDONLY
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        match retry_on_intr(|| openat(&level.folder, name, flags, Mode::empty())) {
            Ok(fd) => {
                let stat = fstat(&fd).map_err(|e| self.failed("look at", path, e))?;
                Ok(Some((fd, stat)))
            }
            Err(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => Ok(None),
            Err(e) => Err(self.failed("open", path, e)),
        }
    }

    fn header(&mut self, path: &[u8], kind: EntryType, stat: &Stat, size: u64, link: &[u8]) {
        self.counts.update(|counted| counted.entries += 1);
        self.ready
            .header(path, kind, Attributes::from(stat), size, link);
    }

    /// The next bytes of a file. Its end is the size in the header, come what may.
    fn read_body(&mut self, mut body: Body, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(body.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if want == 0 {
            let now = fstat(&body.file).map_err(|e| self.failed("look at", &body.path, e))?;
            let then = &body.stat;
            if version(&now) != version(then) {
                self.counts.odd("changed", &body.path);
            }
            self.ready
                .pad(u64::try_from(then.st_size).unwrap_or_default());
            return Ok(0);
        }
        let n = loop {
            match body.file.read(&mut buffer[..want]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let message = format!("read {}", self.full(&body.path));
                    return Err(Error::new(ErrorKind::Source, message).with_source(e).into());
                }
                Ok(0) => {
                    let (path, left) = (self.full(&body.path), body.left);
                    let message = format!("{path} got {left} bytes shorter while it was read");
                    return Err(Error::new(ErrorKind::Source, message).into());
                }
                Ok(n) => break n,
            }
        };
        body.left -= n as u64;
        self.body = Some(body);
        Ok(n)
    }

    fn full(&self, path: &[u8]) -> String {
        format!("{}/{}", self.files.path.display(), show(path))
    }

    /// What is not there any more stays recognisable, everything else fails the backup.
    fn failed(&self, verb: &str, path: &[u8], error: Errno) -> io::Error {
        if error == Errno::NOENT {
            return error.into();
        }
        let message = format!("{verb} {}", self.full(path));
        Error::new(ErrorKind::Source, message)
            .with_source(io::Error::from(error))
            .into()
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.ready.read(buffer)? {
                0 => {}
                n => return Ok(n),
            }
            match self.body.take() {
                Some(body) => match self.read_body(body, buffer)? {
                    0 => {}
                    n => return Ok(n),
                },
                None if self.advance()? => {}
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    use backup_core::Facts;

    use crate::headers::BLOCK;

    /// Reads the root's and the first file's header, lets `change` happen, reads on.
    fn meddle(change: impl FnOnce(&Path)) -> (io::Result<usize>, Facts) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), vec![1; 2_000]).unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("c"), "c").unwrap();
        let counts = Counts::default();
        let mut archive = Archive::new(Files::new(folder.path()), counts.clone());
        archive.read_exact(&mut [0; 1024 + 100]).unwrap();
        change(folder.path());
        let result = archive.read_to_end(&mut Vec::new());
        (result, counts.facts())
    }

    #[test]
    fn nothing_changes_and_nothing_is_counted() {
        let (result, facts) = meddle(|_| ());
        // Root, a and its four blocks, b, c and its block, two blocks of end.
        assert_eq!(result.unwrap(), (1 + 5 + 1 + 2 + 2) * BLOCK - 1024 - 100);
        assert_eq!(facts, Facts::new().with("entries", 4).with("bytes", 2_001));
    }

    #[test]
    fn what_vanishes_is_skipped_and_counted() {
        let (result, facts) = meddle(|root| {
            fs::remove_file(root.join("c")).unwrap();
            fs::remove_dir(root.join("b")).unwrap();
        });
        assert_eq!(result.unwrap() % BLOCK, 512 - 100);
        assert_eq!(facts.get("vanished").unwrap(), 2);
        assert_eq!(
            facts.get("vanished_names").unwrap(),
            &serde_json::json!(["b", "c"])
        );
    }

    #[test]
    fn a_file_that_grows_is_cut_at_its_first_size_and_counted() {
        let (result, facts) = meddle(|root| {
            let mut file = File::options().append(true).open(root.join("a")).unwrap();
            io::Write::write_all(&mut file, &[2; 5_000]).unwrap();
        });
        assert_eq!(result.unwrap(), (1 + 5 + 1 + 2 + 2) * BLOCK - 1024 - 100);
        assert_eq!(facts.get("changed").unwrap(), 1);
        assert_eq!(facts.get("bytes").unwrap(), 2_001);
    }

    #[test]
    fn a_file_that_shrinks_fails_the_backup() {
        let (result, _) = meddle(|root| {
            File::options()
                .write(true)
                .open(root.join("a"))
                .unwrap()
                .set_len(500)
                .unwrap();
        });
        let error = Error::from(result.unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(
            error.to_string().contains("/a got 1500 bytes shorter"),
            "{error}"
        );
    }

    #[test]
    fn what_turns_into_something_else_is_archived_as_that() {
        let (result, facts) = meddle(|root| {
            fs::remove_dir(root.join("b")).unwrap();
            std::os::unix::fs::symlink("/etc", root.join("b")).unwrap();
            fs::remove_file(root.join("c")).unwrap();
            fs::create_dir(root.join("c")).unwrap();
        });
        assert_eq!(result.unwrap(), (1 + 5 + 1 + 1 + 2) * BLOCK - 1024 - 100);
        assert_eq!(facts.get("entries").unwrap(), 4);
    }

    /// A file system gives the number of a file that was deleted to the next one.
    #[test]
    fn another_file_with_the_number_of_a_deleted_one_is_no_link_to_it() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, other) = (folder.path(), outside.path().join("a"));
        fs::write(root.join("a"), "first").unwrap();
        fs::hard_link(root.join("a"), &other).unwrap();
        fs::write(root.join("z"), "").unwrap();
        let mut archive = Archive::new(Files::new(root), Counts::default());
        let mut tar = vec![0; 3 * BLOCK];
        archive.read_exact(&mut tar).unwrap();
        for gone in [&root.join("a"), &other, &root.join("z")] {
            fs::remove_file(gone).unwrap();
        }
        fs::write(root.join("z"), "another").unwrap();
        archive.read_to_end(&mut tar).unwrap();
        assert!(tar.windows(7).any(|bytes| bytes == b"another"));
    }
}
