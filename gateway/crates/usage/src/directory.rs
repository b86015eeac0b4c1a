//! `<data>/wal/<n>/`: one directory for each process that runs at a time, held by a lock that the kernel drops with the process.

use crate::segment::Segment;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the usage log cannot use {0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("the usage log has no room: a segment of {0} bytes could not be made in {1}: {2}")]
    NoRoom(usize, PathBuf, io::Error),
}

impl LogError {
    /// Waiting may help: a disk that is full is emptied by shipping, or by somebody.
    pub(crate) fn is_for_room(&self) -> bool {
        let (Self::Io(_, error) | Self::NoRoom(_, _, error)) = self;
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// A directory this process holds.
pub(crate) struct Held {
    pub path: PathBuf,
    /// Dropped last: the lock goes with it.
    pub _lock: File,
}

/// Takes every directory nobody holds, beside those this process has already.
pub(crate) fn claim(root: &Path, already: &[Held]) -> Result<Vec<Held>, LogError> {
    let fail = |e| LogError::Io(root.to_owned(), e);
    DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(fail)?;
    let mut held = Vec::new();
    for number in numbers(root).map_err(fail)? {
        let path = root.join(number.to_string());
        // The lock belongs to the open file: a second look at one's own directory would be refused too, but costs an open.
        if already.iter().all(|own| own.path != path) {
            held.extend(try_hold(path).map_err(fail)?);
        }
    }
    Ok(held)
}

/// A new directory, when every other one is held by somebody.
pub(crate) fn make(root: &Path) -> Result<Held, LogError> {
    let fail = |e| LogError::Io(root.to_owned(), e);
    let mut next = numbers(root).map_err(fail)?.last().map_or(0, |last| last + 1);
    loop {
        let path = root.join(next.to_string());
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail(e)),
            _ => {
                if let Some(held) = try_hold(path).map_err(fail)? {
                    return Ok(held);
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

fn try_hold(path: PathBuf) -> io::Result<Option<Held>> {
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Held { path, _lock: lock })),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

/// The segments an earlier process left, in the order they were written.
pub(crate) fn left_behind(dir: &Path) -> Result<Vec<Segment>, LogError> {
    let fail = |e| LogError::Io(dir.to_owned(), e);
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail)?.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|ext| ext != "wal") {
            continue;
        }
        match Segment::adopt(&path).map_err(fail)? {
            Some(segment) => segments.push(segment),
            // Killed while making it: it never held a record.
            None => drop(std::fs::remove_file(&path)),
        }
    }
    segments.sort_by_key(|s| s.sequence);
    Ok(segments)
}
