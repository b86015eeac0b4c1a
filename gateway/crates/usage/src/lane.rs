//! The log as one reactor writes it: into its own segments, so that threads share no position.

use crate::log::Log;
use crate::record::{OPEN_MAX, OpenRecord, SettleRecord, USES_MAX, settle_bytes};
use crate::record_id::RecordId;
use crate::segment::{HEADER, RecordKind, Segment, size_of_record};
use crate::sync_point::SyncPoint;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The log has no room: the call must be refused, because it could not be metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the usage log has no room")]
pub struct LogFull;

/// An open call, with room reserved for its settle. It must be returned with [`Lane::settle`].
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    id: RecordId,
    /// Leases in its open record: its settle has room for the charge of each.
    uses: usize,
}

impl Ticket {
    /// Size of its settle record.
    fn settle_bytes(&self) -> usize {
        size_of_record(settle_bytes(self.uses))
    }
}

/// Used by one thread.
pub struct Lane {
    log: Arc<Log>,
    segment: RefCell<Option<Arc<Segment>>>,
    at: Cell<usize>,
    /// Bytes that the settles of open calls need: this much room is kept free in the current segment.
    reserved: Cell<usize>,
    buffer: RefCell<[u8; OPEN_MAX]>,
}

impl Log {
    #[must_use]
    pub fn lane(self: &Arc<Self>) -> Lane {
        let (segment, at, reserved) = (RefCell::new(None), Cell::new(HEADER), Cell::new(0));
        Lane { log: self.clone(), segment, at, reserved, buffer: RefCell::new([0; OPEN_MAX]) }
    }
}

impl Lane {
    /// Stores the open record. Once it has returned, the call is metered whatever happens to the process.
    ///
    /// # Errors
    /// [`LogFull`] when no segment has room for it and its settle.
    pub fn open(&self, record: &OpenRecord<'_>) -> Result<Ticket, LogFull> {
        let ticket = Ticket { id: record.id, uses: record.uses.len().min(USES_MAX) };
        let reserved = self.reserved.get() + ticket.settle_bytes();
        self.append_open(record, reserved)?;
        self.reserved.set(reserved);
        Ok(ticket)
    }

    /// The call goes to another endpoint: the later open record counts.
    ///
    /// # Errors
    /// [`LogFull`]; then the first open record counts.
    pub fn reopen(&self, ticket: &Ticket, record: &OpenRecord<'_>) -> Result<(), LogFull> {
        debug_assert_eq!((ticket.id, ticket.uses), (record.id, record.uses.len().min(USES_MAX)));
        self.append_open(record, self.reserved.get())
    }

    /// Stores how the call ended. It cannot fail, because its room was reserved.
    pub fn settle(&self, ticket: Ticket, settled: &SettleRecord) {
        self.settle_charged(ticket, settled, &[]);
    }

    /// As [`Self::settle`], with the charge to each lease of the open record.
    pub fn settle_charged(&self, ticket: Ticket, settled: &SettleRecord, charges: &[i64]) {
        let (bytes, length) = settled.encode(ticket.id, ticket.uses, charges);
        if let Some(segment) = &*self.segment.borrow() {
            self.at.set(segment.append(self.at.get(), RecordKind::Settle, &bytes[..length]));
        }
        self.reserved.set(self.reserved.get() - ticket.settle_bytes());
        self.log.stats.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// The position after the last record, for callers that must wait until it is on the disk.
    pub fn sync_point(&self) -> Option<SyncPoint> {
        let segment = self.segment.borrow().clone()?;
        Some(SyncPoint::new(self.log.clone(), segment, self.at.get()))
    }

    fn append_open(&self, record: &OpenRecord<'_>, reserved: usize) -> Result<(), LogFull> {
        let mut buffer = self.buffer.borrow_mut();
        let length = record.encode(&mut buffer[..]);
        let needed = size_of_record(length) + reserved;
        let mut segment = self.segment.borrow_mut();
        let fits = |s: &Arc<Segment>| self.at.get() + needed <= s.size() && !s.failed.load(Ordering::Acquire);
        if !segment.as_ref().is_some_and(fits) {
            let fresh = self.log.next_segment(HEADER + needed).ok_or(LogFull)?;
            if let Some(old) = segment.replace(fresh) {
                old.sealed.store(true, Ordering::Release);
            }
            self.at.set(HEADER);
        }
        if let Some(segment) = &*segment {
            self.at.set(segment.append(self.at.get(), RecordKind::Open, &buffer[..length]));
        }
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(segment) = &*self.segment.borrow() {
            segment.sealed.store(true, Ordering::Release);
        }
    }
}
