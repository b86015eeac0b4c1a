//! The log as one reactor writes it: its own segments, so no position is shared between threads.

use crate::durable::Mark;
use crate::keeper::Log;
use crate::record::{OPEN_MAX, Opened, Settled, USES_MAX, settle_bytes};
use crate::record_id::RecordId;
use crate::segment::{HEADER, Kind, Segment, size_of_record};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// No room in the log: the call must be refused, because it could not be metered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the usage log has no room")]
pub struct Full;

/// An open call whose settle has its room. Give it back with [`Lane::settle`]; there is no other way out.
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    id: RecordId,
    /// Leases in its open record: its settle has a place for the charge of each.
    uses: usize,
}

impl Ticket {
    /// Room for its settle.
    fn bytes(&self) -> usize {
        size_of_record(settle_bytes(self.uses))
    }
}

/// Belongs to one thread.
pub struct Lane {
    log: Arc<Log>,
    segment: RefCell<Option<Arc<Segment>>>,
    at: Cell<usize>,
    /// Bytes that the settles of open calls need: so much room is kept in the current segment.
    owed: Cell<usize>,
    buffer: RefCell<[u8; OPEN_MAX]>,
}

impl Lane {
    pub(crate) fn new(log: Arc<Log>) -> Self {
        let (segment, at, owed) = (RefCell::new(None), Cell::new(HEADER), Cell::new(0));
        Self { log, segment, at, owed, buffer: RefCell::new([0; OPEN_MAX]) }
    }

    /// Stores the open record. After it returns, the call is metered whatever happens to the process.
    ///
    /// # Errors
    /// [`Full`] when no segment has room for it and its settle.
    pub fn open(&self, record: &Opened<'_>) -> Result<Ticket, Full> {
        let ticket = Ticket { id: record.id, uses: record.uses.len().min(USES_MAX) };
        let owed = self.owed.get() + ticket.bytes();
        self.append_open(record, owed)?;
        self.owed.set(owed);
        Ok(ticket)
    }

    /// The call goes to another endpoint: the later open record stands.
    ///
    /// # Errors
    /// [`Full`]; the first open record then stands.
    pub fn reopen(&self, ticket: &Ticket, record: &Opened<'_>) -> Result<(), Full> {
        debug_assert_eq!((ticket.id, ticket.uses), (record.id, record.uses.len().min(USES_MAX)));
        self.append_open(record, self.owed.get())
    }

    /// Stores how the call ended. Its room was reserved, so it cannot fail.
    pub fn settle(&self, ticket: Ticket, settled: &Settled) {
        self.settle_charged(ticket, settled, &[]);
    }

    /// As [`Self::settle`], with what each lease of the open record is charged.
    pub fn settle_charged(&self, ticket: Ticket, settled: &Settled, charges: &[i64]) {
        let (bytes, length) = settled.encode(ticket.id, ticket.uses, charges);
        if let Some(segment) = &*self.segment.borrow() {
            self.at.set(segment.append(self.at.get(), Kind::Settle, &bytes[..length]));
        }
        self.owed.set(self.owed.get() - ticket.bytes());
        self.log.stats.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the log stands after the last record, for who must know it on the disk.
    pub fn mark(&self) -> Option<Mark> {
        let segment = self.segment.borrow().clone()?;
        Some(Mark::new(self.log.clone(), segment, self.at.get()))
    }

    fn append_open(&self, record: &Opened<'_>, owed: usize) -> Result<(), Full> {
        let mut buffer = self.buffer.borrow_mut();
        let length = record.encode(&mut buffer[..]);
        let needed = size_of_record(length) + owed;
        let mut segment = self.segment.borrow_mut();
        let fits = |s: &Arc<Segment>| self.at.get() + needed <= s.size() && !s.failed.load(Ordering::Acquire);
        if !segment.as_ref().is_some_and(fits) {
            let fresh = self.log.next_segment(HEADER + needed).ok_or(Full)?;
            if let Some(old) = segment.replace(fresh) {
                old.sealed.store(true, Ordering::Release);
            }
            self.at.set(HEADER);
        }
        if let Some(segment) = &*segment {
            self.at.set(segment.append(self.at.get(), Kind::Open, &buffer[..length]));
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
