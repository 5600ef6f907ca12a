use std::path::Path;

/// How many bytes we can still write to the file system of `path`, or of the nearest folder above
/// it that exists. `None`: nobody can tell.
pub fn free_space(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find(|path| path.exists())?;
    of_file_system(there)
}

#[cfg(unix)]
fn of_file_system(path: &Path) -> Option<u64> {
    let known = rustix::fs::statvfs(path).ok()?;
    Some(known.f_bavail.saturating_mul(known.f_frsize))
}

#[cfg(not(unix))]
fn of_file_system(_: &Path) -> Option<u64> {
    None
}
