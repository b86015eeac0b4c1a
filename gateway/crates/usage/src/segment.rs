//! One mapped, preallocated file of records.
//!
//! ```text
//! header  128 bytes: magic (8) · sequence (8) · gateway id (length byte, text of at most 95)
//!         process id (16; not in version 1)
//! record  aligned to 8: one word · payload · padding
//! word    bits 0–31 CRC32C of kind, length and payload · 32–47 length · 48–55 kind
//!         56–62 a mark that makes it non-zero · 63 whether its call was acknowledged
//! ```
//!
//! The payload is stored first and the word last with Release, so a reader that sees the word also sees the payload.
//! A zero word ends the scan.

#![allow(unsafe_code)] // the map is read and written through raw pointers; every offset is checked against the file's length first

use crate::record_id::RecordId;
use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub(crate) const HEADER: usize = 128;
const MAGIC: &[u8; 8] = b"TNWAL02\n";
/// The magic of logs whose headers have no process id.
const MAGIC_1: &[u8; 8] = b"TNWAL01\n";
const PROCESS_AT: usize = HEADER - 16;
/// A multiple of every system's page.
const BLOCK: usize = 64 << 10;
const MARK: u64 = 0x5a << 56;
const ACKNOWLEDGED: u64 = 1 << 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    Open = 1,
    Settle = 2,
}

pub(crate) struct Segment {
    map: MmapRaw,
    file: File,
    pub path: PathBuf,
    pub sequence: u64,
    pub gateway_id: String,
    /// The run of the gateway that wrote it; zero = unknown.
    pub process_id: RecordId,
    /// Bytes the writer has used; the sync checks whether it moved.
    pub written: AtomicUsize,
    pub synced: AtomicUsize,
    /// The writer went on to the next one.
    pub sealed: AtomicBool,
    /// A sync failed: its contents may not reach the disk, so the writer moves on to another segment.
    pub failed: AtomicBool,
    /// Records that the shipper has read and whose call is not acknowledged yet.
    pub pending: AtomicU32,
}

/// A record as the reader sees it.
pub(crate) struct StoredRecord<'a> {
    pub kind: RecordKind,
    pub payload: &'a [u8],
    pub acknowledged: bool,
    pub next: usize,
}

pub(crate) fn size_of_record(payload: usize) -> usize {
    8 + payload.next_multiple_of(8)
}

impl Segment {
    /// Creates a file of `size` bytes, allocated on disk, so that a full disk shows here and not as a signal during a
    /// store.
    pub fn create(dir: &Path, sequence: u64, size: usize, (gateway_id, process_id): (&str, RecordId), disk: &Disk) -> io::Result<Self> {
        let path = dir.join(format!("{sequence:012}.wal"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let mapped = (disk.allocate)(&file, size).and_then(|()| MmapOptions::new().len(size).populate().map_raw(&file));
        let map = mapped.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        let mut segment = Self::new(map, file, path, sequence, gateway_id.to_owned());
        segment.process_id = process_id;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        let name = &gateway_id.as_bytes()[..gateway_id.floor_char_boundary(PROCESS_AT - 17)];
        header[16] = u8::try_from(name.len()).unwrap_or(0);
        header[17..17 + name.len()].copy_from_slice(name);
        header[PROCESS_AT..].copy_from_slice(&process_id.0);
        segment.store(0, &header);
        // Its name must survive a power failure as well as its bytes.
        File::open(dir).and_then(|dir| dir.sync_all()).inspect_err(|_| drop(std::fs::remove_file(&segment.path)))?;
        Ok(segment)
    }

    /// Opens one of an earlier process. `None` = it is not ours, or its creation was never finished.
    pub fn adopt(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        if size < HEADER {
            return Ok(None);
        }
        let map = MmapOptions::new().len(size).map_raw(&file)?;
        let mut segment = Self::new(map, file, path.to_owned(), 0, String::new());
        let header = segment.load(0, HEADER).to_vec();
        let name = header.get(17..17 + usize::from(header[16])).unwrap_or_default();
        let is_ours = header[..8] == *MAGIC || header[..8] == *MAGIC_1;
        if header[..8] == *MAGIC {
            segment.process_id = RecordId(header[PROCESS_AT..].try_into().unwrap_or_default());
        }
        segment.sequence = header[8..16].try_into().map_or(0, u64::from_le_bytes);
        segment.gateway_id = String::from_utf8_lossy(name).into_owned();
        segment.sealed = AtomicBool::new(true);
        Ok(is_ours.then_some(segment))
    }

    fn new(map: MmapRaw, file: File, path: PathBuf, sequence: u64, gateway_id: String) -> Self {
        let (written, synced) = (AtomicUsize::new(HEADER), AtomicUsize::new(0));
        let (sealed, failed, pending) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU32::new(0));
        Self { map, file, path, sequence, gateway_id, process_id: RecordId([0; 16]), written, synced, sealed, failed, pending }
    }

    pub fn size(&self) -> usize {
        self.map.len()
    }

    /// Writes one record at `at` and returns the position after it. Only the lane's own thread calls this.
    pub fn append(&self, at: usize, kind: RecordKind, payload: &[u8]) -> usize {
        let next = at + size_of_record(payload.len());
        self.store(at + 8, payload);
        let checksum = u64::from(checksum(kind as u8, payload));
        let word = MARK | (kind as u64) << 48 | (payload.len() as u64 & 0xffff) << 32 | checksum;
        self.word(at).store(word, Ordering::Release);
        self.written.store(next, Ordering::Release);
        next
    }

    /// The record at `at`. `None` = the log ends there, or a power failure tore the record.
    pub fn read(&self, at: usize) -> Option<StoredRecord<'_>> {
        if at + 8 > self.size() {
            return None;
        }
        let word = self.word(at).load(Ordering::Acquire);
        let length = usize::try_from(word >> 32 & 0xffff).ok()?;
        let kind = match word >> 48 & 0xff {
            1 => RecordKind::Open,
            2 => RecordKind::Settle,
            _ => return None,
        };
        let next = at + size_of_record(length);
        if word & !ACKNOWLEDGED & 0xff << 56 != MARK || next > self.size() {
            return None;
        }
        let payload = self.load(at + 8, length);
        let whole = u64::from(checksum(kind as u8, payload)) == word & 0xffff_ffff;
        whole.then_some(StoredRecord { kind, payload, acknowledged: word & ACKNOWLEDGED != 0, next })
    }

    /// The payload of a record that was read before, its checksum with it.
    pub fn payload(&self, at: usize) -> &[u8] {
        let length = usize::try_from(self.word(at).load(Ordering::Acquire) >> 32 & 0xffff).unwrap_or(0);
        self.load(at + 8, length)
    }

    /// Marks in the log itself that the record's call was acknowledged, so that a restart does not ship it again.
    pub fn acknowledge(&self, at: usize) {
        self.word(at).fetch_or(ACKNOWLEDGED, Ordering::AcqRel);
    }

    /// Brings what was written so far to the disk. A segment that failed once is never synced again: the system reports
    /// a lost page only once, so a later success would mean nothing.
    pub fn sync(&self, disk: &Disk) -> io::Result<()> {
        let written = self.written.load(Ordering::Acquire);
        if self.synced.load(Ordering::Relaxed) == written || self.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.release(self.synced.load(Ordering::Relaxed), written);
        (disk.sync)(&self.file).inspect_err(|_| self.failed.store(true, Ordering::Release))?;
        self.synced.store(written, Ordering::Release);
        Ok(())
    }

    /// Removes the blocks written since the last sync from this process's page tables; the file keeps them. Otherwise
    /// the sync would do this page by page, each with an interrupt to every processor that runs one of our threads.
    fn release(&self, from: usize, to: usize) {
        let (from, to) = (from / BLOCK * BLOCK, to / BLOCK * BLOCK);
        if from < to {
            // SAFETY: the map is shared and of a file, so the bytes stay; whoever reads or writes them next maps the
            // same page again.
            let _only_slower = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
        }
    }

    fn store(&self, at: usize, bytes: &[u8]) {
        debug_assert!(at + bytes.len() <= self.size());
        if at + bytes.len() <= self.size() {
            // SAFETY: in bounds (checked above); the lane's thread is the only writer, and readers wait for the word
            // that follows.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(at), bytes.len()) };
        }
    }

    fn load(&self, at: usize, length: usize) -> &[u8] {
        if at + length > self.size() {
            return &[];
        }
        // SAFETY: in bounds (checked above); the bytes before a published word are never written again.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(at), length) }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.size(), "records are aligned and in bounds");
        // SAFETY: aligned and in bounds (asserted); all access to record words is atomic.
        unsafe { &*self.map.as_mut_ptr().add(at).cast::<AtomicU64>() }
    }
}

fn checksum(kind: u8, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(u32::from(kind) ^ u32::try_from(payload.len()).unwrap_or(0) << 8, payload)
}

/// The two calls that a disk can refuse. Tests replace them.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub allocate: fn(&File, usize) -> io::Result<()>,
    pub sync: fn(&File) -> io::Result<()>,
}

impl Default for Disk {
    fn default() -> Self {
        Self { allocate, sync: File::sync_data }
    }
}

fn allocate(file: &File, size: usize) -> io::Result<()> {
    let size = libc::off_t::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a plain call on an open descriptor. It returns the error instead of setting errno.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}
