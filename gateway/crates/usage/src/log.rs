//! The log as its users share it: which segments there are, which of them the shipper has not seen, and what is
//! counted.
//!
//! Lanes take segments from here, the shipper reads and deletes them, and the threads of `wal_manager` create and sync
//! them.

use crate::directories::LockedDirectory;
use crate::processes::{self, EarlierProcesses};
use crate::record_id::RecordId;
use crate::segment::{Disk, Segment};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `<data>/wal`.
    pub root: PathBuf,
    pub gateway_id: String,
    pub lanes: usize,
    pub segment_bytes: usize,
    /// Above this no segment is created, and calls are refused until some have shipped.
    pub bytes_max: u64,
    pub sync_every: Duration,
    /// How long a segment may not know which of its calls were acknowledged. Most segments are deleted before that, and
    /// a mark for each call would bring every page to the disk once more. A process that is killed meanwhile ships
    /// those calls again, under the same record ids.
    pub mark_after: Duration,
    pub disk: Disk,
}

/// For metrics.
#[derive(Debug, Default)]
pub struct LogStats {
    pub segments: AtomicU64,
    pub sync_errors: AtomicU64,
    pub allocation_errors: AtomicU64,
    pub shipped: AtomicU64,
    /// Calls settled by this process, and those that an earlier one left to ship.
    pub ended: AtomicU64,
    /// A segment was requested and there was none. Reset when there is one again.
    pub is_full: AtomicBool,
}

pub struct Log {
    pub(crate) options: LogOptions,
    /// Locked for moments only, because reactors take it too.
    state: Mutex<State>,
    /// Wakes the thread that creates segments.
    pub(crate) refill_needed: Condvar,
    /// Wakes the thread that syncs them.
    pub(crate) sync_needed: Condvar,
    pub(crate) is_stopping: AtomicBool,
    process_id: RecordId,
    pub stats: LogStats,
}

#[derive(Default)]
pub(crate) struct State {
    /// The first is the one written to. Empty while a full disk refuses even a directory.
    pub directories: Vec<LockedDirectory>,
    pub next_sequence: u64,
    /// Created ahead, the lowest sequence last.
    pub spares: Vec<Segment>,
    /// All that are on disk, for the sync. The shipper removes what it deletes.
    pub live: Vec<Arc<Segment>>,
    /// In use by lanes, not yet seen by the shipper.
    pub new: Vec<Arc<Segment>>,
    /// Of processes that ended, not yet seen by the shipper.
    pub abandoned: Vec<Arc<Segment>>,
    /// To be woken by the next sync that begins from now on.
    pub sync_wakers: Vec<Waker>,
    /// Processes that are gone, by the directory that held their records.
    pub earlier: Vec<EarlierProcesses>,
    /// Those of them whose records are all acknowledged, not yet reported.
    pub shipped_processes: Vec<RecordId>,
}

impl Log {
    pub(crate) fn new(options: LogOptions, process_id: RecordId) -> Self {
        Self {
            options,
            state: Mutex::default(),
            refill_needed: Condvar::new(),
            sync_needed: Condvar::new(),
            is_stopping: AtomicBool::new(false),
            process_id,
            stats: LogStats::default(),
        }
    }

    /// The id of this run: it stands in every record, and leases belong to it.
    #[must_use]
    pub fn process_id(&self) -> RecordId {
        self.process_id
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stats.segments.load(Ordering::Relaxed) * self.options.segment_bytes as u64
    }

    /// Calls that ended and are not acknowledged.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.stats.ended.load(Ordering::Relaxed).saturating_sub(self.stats.shipped.load(Ordering::Relaxed))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, and the state is valid at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment for a lane, with room for `needed` bytes. `None` = there is none.
    pub(crate) fn next_segment(&self, needed: usize) -> Option<Arc<Segment>> {
        if needed > self.options.segment_bytes {
            return None;
        }
        let mut state = self.lock();
        let Some(segment) = state.spares.pop().map(Arc::new) else {
            self.stats.is_full.store(true, Ordering::Relaxed);
            return None;
        };
        self.refill_needed.notify_all();
        state.live.push(segment.clone());
        state.new.push(segment.clone());
        Some(segment)
    }

    /// What the shipper has not seen: segments begun by this process, and those of processes that are gone.
    pub(crate) fn take_new(&self) -> (Vec<Arc<Segment>>, Vec<Arc<Segment>>) {
        let mut state = self.lock();
        (std::mem::take(&mut state.new), std::mem::take(&mut state.abandoned))
    }

    /// Deletes a segment in which everything is acknowledged.
    pub(crate) fn delete(&self, segment: &Arc<Segment>) {
        let mut state = self.lock();
        state.live.retain(|s| !Arc::ptr_eq(s, segment));
        if segment.process_id != self.process_id {
            let State { earlier, shipped_processes, .. } = &mut *state;
            processes::record_deletion(earlier, &segment.path, shipped_processes);
        }
        drop(state);
        if let Err(error) = std::fs::remove_file(&segment.path) {
            tracing::error!(path = %segment.path.display(), "a shipped segment could not be deleted: {error}");
        }
        self.stats.segments.fetch_sub(1, Ordering::Relaxed);
        self.refill_needed.notify_all();
    }

    pub(crate) fn wake_after_sync(&self, waker: &Waker) {
        self.lock().sync_wakers.push(waker.clone());
        self.sync_needed.notify_all();
    }

    pub(crate) fn take_shipped_processes(&self) -> Vec<RecordId> {
        std::mem::take(&mut self.lock().shipped_processes)
    }

    pub(crate) fn forget_process(&self, id: &str) {
        let state = self.lock();
        for earlier in state.earlier.iter().filter(|earlier| earlier.ids.iter().any(|known| *known.text() == *id)) {
            let own = state.directories.first().filter(|directory| directory.path == earlier.dir).map(|_| self.process_id);
            let left: Vec<_> = processes::read(&earlier.dir).into_iter().filter(|known| *known.text() != *id || Some(*known) == own).collect();
            processes::write(&earlier.dir, &left);
        }
    }
}
