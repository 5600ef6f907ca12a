//! A tar stream as a tree: files first, links when every file is there, folders' own attributes
//! last.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use backup_core::{Error, ErrorKind, Result, StreamReader};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, openat, statat, symlinkat};
use rustix::io::{Errno, retry_on_intr};
use tar::EntryType;

use crate::MAX_DEPTH;
use crate::attributes::Attributes;
use crate::blocks::{Blocks, Entry, refused};
use crate::counts::show;
use crate::tree::Tree;

/// Unpacks all of `data` into the empty folder `root`.
///
/// In memory are the paths of folders and links, about 200 bytes each.
pub(crate) fn unpack(
    data: &mut StreamReader,
    root: OwnedFd,
    refuse_outside_links: bool,
) -> Result<()> {
    let mut unpacking = Unpacking {
        tree: Tree::new(root),
        as_root: rustix::process::geteuid().is_root(),
        refuse_outside_links,
        folders: BTreeMap::new(),
        hard_links: Vec::new(),
        links: Vec::new(),
    };
    let mut blocks = Blocks::new(data);
    while let Some(entry) = blocks.next()? {
        unpacking.entry(entry, &mut blocks)?;
    }
    unpacking.finish()
}

struct Unpacking {
    tree: Tree,
    as_root: bool,
    refuse_outside_links: bool,
    /// Sorted, a folder comes before what is in it.
    folders: BTreeMap<Vec<u8>, Attributes>,
    /// Name and the name that it is another one of.
    hard_links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Name, target.
    links: Vec<(Vec<u8>, Vec<u8>, Attributes)>,
}

impl Unpacking {
    fn entry(&mut self, entry: Entry, blocks: &mut Blocks<'_>) -> Result<()> {
        let path = clean(&entry.path)?;
        if path.is_empty() && entry.kind != EntryType::Directory {
            return Err(refused("it replaces its own root"));
        }
        match entry.kind {
            EntryType::Regular if !entry.path.ends_with(b"/") => self.file(&path, &entry, blocks),
            EntryType::Directory => {
                let names = split(&path);
                self.tree
                    .enter(&names, true)
                    .map_err(|e| failed("create folder", &path, e))?;
                match self.folders.insert(path, entry.attributes) {
                    None => Ok(()),
                    Some(_) => Err(twice(&entry.path)),
                }
            }
            EntryType::Link => {
                let other = clean(&entry.link)?;
                if other.is_empty() {
                    return Err(refused(&format!("{} links to its root", show(&path))));
                }
                self.hard_links.push((path, other));
                Ok(())
            }
            EntryType::Symlink => {
                if self.refuse_outside_links && leads_outside(&path, &entry.link) {
                    let (path, target) = (show(&path), show(&entry.link));
                    return Err(refused(&format!("link {path} leads outside, to {target}")));
                }
                self.links.push((path, entry.link, entry.attributes));
                Ok(())
            }
            kind => {
                let kind = char::from(kind.as_byte()).escape_default();
                Err(refused(&format!("{} is of type {kind}", show(&path))))
            }
        }
    }

    fn file(&mut self, path: &[u8], entry: &Entry, blocks: &mut Blocks<'_>) -> Result<()> {
        let (parents, name) = parent_and_name(path);
        let failed = |e| failed("write", path, e);
        let folder = self.tree.enter(&parents, true).map_err(failed)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file: File = retry_on_intr(|| openat(folder, name, flags, mode))
            .map_err(|e| failed(e.into()))?
            .into();
        let mut left = entry.size;
        while left > 0 {
            let piece = blocks.some(left)?;
            file.write_all(&piece).map_err(failed)?;
            left -= piece.len() as u64;
        }
        blocks.padding(entry.size)?;
        entry.attributes.apply(&file, self.as_root).map_err(failed)
    }

    fn finish(mut self) -> Result<()> {
        for (path, other) in std::mem::take(&mut self.hard_links) {
            self.hard_link(&path, &other)?;
        }
        // From here on there are links, and still no step goes through one.
        for (path, target, attributes) in std::mem::take(&mut self.links) {
            let failed = |e| failed("create link", &path, e);
            let (parents, name) = parent_and_name(&path);
            let folder = self.tree.enter(&parents, true).map_err(failed)?;
            symlinkat(&target[..], folder, name).map_err(|e| failed(e.into()))?;
            attributes
                .apply_to_link(folder, name, self.as_root)
                .map_err(failed)?;
        }
        // The deepest first: writing into a folder changes its time, and its mode may forbid it.
        for (path, attributes) in self.folders.iter().rev() {
            let failed = |e| failed("set the mode of folder", path, e);
            let folder = self.tree.enter(&split(path), false).map_err(failed)?;
            attributes.apply(folder, self.as_root).map_err(failed)?;
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &[u8], other: &[u8]) -> Result<()> {
        let missing = |_| {
            let (path, other) = (show(path), show(other));
            refused(&format!(
                "{path} is another name of {other}, which is no file in it"
            ))
        };
        let (parents, other_name) = parent_and_name(other);
        let from = self.tree.enter(&parents, false).map_err(missing)?;
        let from = from
            .try_clone_to_owned()
            .map_err(|e| failed("link", path, e))?;
        let stat =
            statat(&from, other_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| missing(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(missing(io::ErrorKind::InvalidInput.into()));
        }
        let failed = |e| failed("link", path, e);
        let (parents, name) = parent_and_name(path);
        let to = self.tree.enter(&parents, true).map_err(failed)?;
        linkat(&from, other_name, to, name, AtFlags::empty()).map_err(|e| failed(e.into()))
    }
}

/// A path below the root, without `./` before and `/` behind it. Empty is the root itself.
fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let shown = show(path);
    let mut rest = path.strip_suffix(b"/").unwrap_or(path);
    if rest == b"." {
        return Ok(Vec::new());
    }
    rest = rest.strip_prefix(b"./").unwrap_or(rest);
    let names = split(rest);
    if names.is_empty() || names.iter().any(|name| matches!(*name, b"" | b"." | b"..")) {
        return Err(refused(&format!(
            "the name {shown:?} is absolute or leads elsewhere"
        )));
    }
    if names.len() > MAX_DEPTH {
        return Err(refused(&format!(
            "{shown} is more than {MAX_DEPTH} folders deep"
        )));
    }
    Ok(rest.to_vec())
}

fn split(path: &[u8]) -> Vec<&[u8]> {
    if path.is_empty() {
        Vec::new()
    } else {
        path.split(|c| *c == b'/').collect()
    }
}

fn parent_and_name(path: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut names = split(path);
    let name = names.pop().unwrap_or_default();
    (names, name)
}

/// Whether a link at `path` points out of the tree, by its text.
fn leads_outside(path: &[u8], target: &[u8]) -> bool {
    let mut depth = split(path).len() - 1;
    target.starts_with(b"/")
        || target.split(|c| *c == b'/').any(|name| match name {
            b"" | b"." => false,
            b".." if depth == 0 => true,
            b".." => {
                depth -= 1;
                false
            }
            _ => {
                depth += 1;
                false
            }
        })
}

fn twice(path: &[u8]) -> Error {
    refused(&format!("{} is in it twice", show(path)))
}

/// What the tree itself says no to is the archive's fault.
fn failed(verb: &str, path: &[u8], error: io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::EXIST) => twice(path),
        Some(Errno::NOTDIR | Errno::LOOP) => {
            refused(&format!("{} is within what is no folder", show(path)))
        }
        Some(Errno::NAMETOOLONG) => refused(&format!("the name {} is too long", show(path))),
        Some(Errno::ACCESS | Errno::PERM) => {
            Error::new(ErrorKind::Denied, format!("{verb} {}", show(path))).with_source(error)
        }
        _ => Error::new(ErrorKind::Other, format!("{verb} {}", show(path))).with_source(error),
    }
}
