//! `<data>/wal/<n>/`: one directory for each running process, held by a lock that the kernel releases when the process
//! ends.

use crate::segment::Segment;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the usage log cannot use {0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("the usage log has no room: a segment of {0} bytes could not be created in {1}: {2}")]
    NoRoom(usize, PathBuf, io::Error),
}

impl LogError {
    /// Waiting may help: shipping, or an operator, makes room on a full disk.
    pub(crate) fn is_out_of_space(&self) -> bool {
        let (Self::Io(_, error) | Self::NoRoom(_, _, error)) = self;
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// A directory that this process has locked.
pub(crate) struct LockedDirectory {
    pub path: PathBuf,
    /// Closing the file releases the lock.
    pub _lock: File,
}

/// Locks every directory that no process holds. `owned` are those that this process has already.
pub(crate) fn lock_unowned(root: &Path, owned: &[LockedDirectory]) -> Result<Vec<LockedDirectory>, LogError> {
    let fail = |e| LogError::Io(root.to_owned(), e);
    DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(fail)?;
    let mut locked = Vec::new();
    for number in numbers(root).map_err(fail)? {
        let path = root.join(number.to_string());
        // The lock belongs to the open file: locking one's own directory again would be refused too, but costs an open.
        if owned.iter().all(|own| own.path != path) {
            locked.extend(try_lock(path).map_err(fail)?);
        }
    }
    Ok(locked)
}

/// Creates and locks a directory, when other processes hold all there are.
pub(crate) fn create(root: &Path) -> Result<LockedDirectory, LogError> {
    let fail = |e| LogError::Io(root.to_owned(), e);
    let mut next = numbers(root).map_err(fail)?.last().map_or(0, |last| last + 1);
    loop {
        let path = root.join(next.to_string());
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail(e)),
            _ => {
                if let Some(locked) = try_lock(path).map_err(fail)? {
                    return Ok(locked);
                }
            }
        }
        next += 1;
    }
}

fn numbers(root: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = std::fs::read_dir(root)?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn try_lock(path: PathBuf) -> io::Result<Option<LockedDirectory>> {
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(LockedDirectory { path, _lock: lock })),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

/// The segments that earlier processes left, in the order they were written.
pub(crate) fn read_segments(dir: &Path) -> Result<Vec<Segment>, LogError> {
    let fail = |e| LogError::Io(dir.to_owned(), e);
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)?.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ext| ext != "wal") {
            continue;
        }
        match Segment::adopt(&path).map_err(fail)? {
            Some(segment) => segments.push(segment),
            // Its process was killed while creating it: it never held a record.
            None => drop(std::fs::remove_file(&path)),
        }
    }
    segments.sort_by_key(|s| s.sequence);
    Ok(segments)
}
