//! The files of a repository, one after the other, and back.
//!
//! A repository is read from its end: `index.latest` names `index-N`, and that names the rest
//! ("BlobStoreRepository"). So blobs come first and those two last, and half of an archive is no
//! repository.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use backup_core::{Error, ErrorKind, Result};

/// A tar archive while it is read.
pub(crate) struct Archive {
    folder: PathBuf,
    files: VecDeque<PathBuf>,
    current: Box<dyn Read + Send>,
    left: u64,
    ended: bool,
}

impl Archive {
    /// Of everything in `folder`.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        walk(folder, Path::new(""), &mut files)
            .map_err(|e| Error::io(format!("read folder {}", folder.display()), e))?;
        files.sort_by_key(|file| (rank(file), file.clone()));
        Ok(Self {
            folder: folder.to_owned(),
            files: files.into(),
            current: Box::new(io::empty()),
            left: 0,
            ended: false,
        })
    }

    /// How many bytes the files have.
    pub(crate) fn size(&self) -> io::Result<u64> {
        self.files
            .iter()
            .map(|file| Ok(self.folder.join(file).metadata()?.len()))
            .sum()
    }

    fn begin(&mut self, file: &Path) -> io::Result<()> {
        let opened = File::open(self.folder.join(file))?;
        let size = opened.metadata()?.len();
        let mut header = tar::Header::new_ustar();
        header.set_path(file)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        let padding = (512 - size % 512) % 512;
        let (header, padding) = (
            io::Cursor::new(*header.as_bytes()),
            io::repeat(0).take(padding),
        );
        self.left = 512 + size + padding.limit();
        self.current = Box::new(header.chain(opened.take(size)).chain(padding));
        Ok(())
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.current.read(buffer)?;
            self.left = self.left.saturating_sub(n as u64);
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            if self.left > 0 {
                return Err(io::Error::other(
                    "a file of the repository became shorter while it was read",
                ));
            }
            match self.files.pop_front() {
                Some(file) => self.begin(&file).map_err(|e| {
                    io::Error::new(e.kind(), format!("file {}: {e}", file.display()))
                })?,
                None if self.ended => return Ok(0),
                None => {
                    self.ended = true;
                    self.left = 1024;
                    self.current = Box::new(io::repeat(0).take(1024));
                }
            }
        }
    }
}

fn walk(root: &Path, within: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(within))? {
        let entry = entry?;
        let path = within.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => walk(root, &path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

fn rank(file: &Path) -> u8 {
    match file.to_str() {
        Some("index.latest") => 2,
        Some(name) if name.starts_with("index-") => 1,
        _ => 0,
    }
}

/// Writes the files of an archive into `folder`, which must not exist, for everybody to read: the
/// nodes run as somebody else.
pub(crate) fn unpack(archive: impl Read, folder: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("write into {}", folder.display()), e);
    let folders = |path: &Path| -> io::Result<()> {
        fs::create_dir_all(path)?;
        let within = path.ancestors().take_while(|up| up.starts_with(folder));
        within
            .into_iter()
            .try_for_each(|up| fs::set_permissions(up, fs::Permissions::from_mode(0o755)))
    };
    fs::create_dir(folder).map_err(failed)?;
    folders(folder).map_err(failed)?;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(Error::from)? {
        let mut entry = entry.map_err(Error::from)?;
        let path = entry.path().map_err(Error::from)?.into_owned();
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || !entry.header().entry_type().is_file() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{} is no file of a repository", path.display()),
            ));
        }
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            folders(parent).map_err(failed)?;
        }
        let mut file = File::create_new(&path).map_err(failed)?;
        io::copy(&mut entry, &mut file).map_err(Error::from)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))
            .map_err(failed)?;
    }
    // What is behind the last entry belongs to the part, and its hash is known at its end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(Error::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_comes_back_and_its_index_is_last() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let files = [
            ("index-3", 10),
            ("index.latest", 8),
            ("indices/a/0/__b", 512),
            ("indices/a/0/index-x", 0),
            ("snap-1.dat", 70_000),
        ];
        for (name, size) in files {
            fs::create_dir_all(from.join(name).parent().unwrap()).unwrap();
            fs::write(from.join(name), vec![7; size]).unwrap();
        }
        let mut bytes = Vec::new();
        Archive::of(&from).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(Archive::of(&from).unwrap().size().unwrap(), 70_530);
        let mut names = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().to_str().unwrap().to_owned());
        }
        assert_eq!(names[3..], ["index-3", "index.latest"]);
        unpack(&bytes[..], &to).unwrap();
        for (name, size) in files {
            assert_eq!(fs::read(to.join(name)).unwrap(), vec![7; size]);
        }
        assert!(unpack(&bytes[..], &to).is_err(), "it is there already");
        assert!(unpack(&bytes[..bytes.len() / 2], &folder.path().join("half")).is_err());
    }

    #[test]
    fn what_leaves_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, kind) in [
            ("../x", tar::EntryType::Regular),
            ("link", tar::EntryType::Symlink),
        ] {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_cksum();
            let bytes = [&header.as_bytes()[..], &[0; 1024]].concat();
            let at = folder.path().join(name.replace(['.', '/'], "_"));
            assert_eq!(
                unpack(&bytes[..], &at).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
    }
}
