//! The append-only file of a server of version 7 or later: a folder with a base, which may be an
//! RDB, what came after it, and a manifest that names them (`aof.c`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::file::own;

/// Where it is, or would be.
#[derive(Clone, Debug)]
pub(crate) struct AppendOnly {
    pub(crate) folder: PathBuf,
    /// What its files' names begin with: `appendfilename`.
    name: String,
}

impl AppendOnly {
    /// The one in a server's folder; where there is none and one is `wanted`, one of the usual
    /// names. A single file, which a server of version 7 or later would take for one, is refused.
    pub(crate) fn of(folder: &Path, wanted: bool) -> Result<Option<Self>> {
        let failed = |e| Error::io(format!("look into {}", folder.display()), e);
        let entries = match fs::read_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_file() && path.extension().is_some_and(|end| end == "aof") {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "a server with `appendonly yes` would load {}, and not what is restored: move it away",
                        path.display()
                    ),
                ));
            }
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // A folder that we may not look into is none of the server's.
            let inside = if kind.is_dir() && !hidden {
                fs::read_dir(&path).ok()
            } else {
                None
            };
            for file in inside.into_iter().flatten().flatten() {
                if let Some(name) = file.file_name().to_string_lossy().strip_suffix(".manifest") {
                    let name = name.to_owned();
                    return Ok(Some(Self { folder: path, name }));
                }
            }
        }
        let usual = || Self {
            folder: folder.join("appendonlydir"),
            name: "appendonly.aof".to_owned(),
        };
        Ok(wanted.then(usual))
    }

    pub(crate) fn exists(&self) -> bool {
        self.folder.exists()
    }

    /// Makes the new one in the folder `staged`: its base is the file `rdb` under a second name.
    pub(crate) fn stage(&self, staged: &Path, rdb: &Path, owner: &fs::Metadata) -> io::Result<()> {
        fs::create_dir(staged)?;
        own(staged, owner);
        let base = format!("{}.1.base.rdb", self.name);
        fs::hard_link(rdb, staged.join(&base))?;
        let path = staged.join(format!("{}.manifest", self.name));
        let mut manifest = File::create_new(&path)?;
        manifest.write_all(format!("file {base} seq 1 type b\n").as_bytes())?;
        own(&path, owner);
        manifest.sync_all()?;
        File::open(staged)?.sync_all()
    }

    /// Puts the staged one in its place, and what was there into `staged`; and back again.
    pub(crate) fn swap(&self, staged: &Path) -> io::Result<()> {
        match (self.exists(), staged.exists()) {
            (true, true) => {
                let exchange = RenameFlags::EXCHANGE;
                Ok(renameat_with(CWD, staged, CWD, &self.folder, exchange)?)
            }
            (true, false) => fs::rename(&self.folder, staged),
            (false, _) => fs::rename(staged, &self.folder),
        }
    }
}
