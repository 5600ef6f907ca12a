//! Whether a server runs in a folder.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use backup_core::{Error, ErrorKind, Result};

/// Refuses where a server has `folder` for its own: it would save over what is put there, when it
/// is stopped at the latest. `CONFIG SET dir` and a start with `dir` both make it the working
/// folder of the process, and that is what is looked at, in other containers too; where there is
/// no `/proc` nothing is.
pub(crate) fn refuse_running(folder: &Path) -> Result<()> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Ok(());
    };
    let own = fs::metadata(folder);
    let own = own.map_err(|e| Error::io(format!("folder {}", folder.display()), e))?;
    for process in processes.flatten() {
        let path = process.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let name = name.trim();
        if !["redis", "valkey", "keydb"]
            .iter()
            .any(|server| name.contains(server))
        {
            continue;
        }
        let pid = process.file_name();
        let refused = |why: &str| {
            let pid = pid.to_string_lossy();
            Err(Error::new(
                ErrorKind::Refused,
                format!("{name} (process {pid}) {why}"),
            ))
        };
        match fs::metadata(path.join("cwd")) {
            Ok(cwd) if (cwd.dev(), cwd.ino()) == (own.dev(), own.ino()) => {
                return refused(&format!(
                    "runs in {}, and would save over the file: stop it, or restore to its redis:// URL",
                    folder.display()
                ));
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return refused(
                    "belongs to somebody else, so nobody knows whether it owns the file: run this as root or as its user",
                );
            }
            _ => {}
        }
    }
    Ok(())
}
