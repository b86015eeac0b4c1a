//! The log as a whole: segments made ahead, synced in the background, counted, and handed to the queue.

use crate::directory::{Held, LogError, claim, left_behind};
use crate::lane::Lane;
use crate::queue::Queue;
use crate::segment::Segment;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Options {
    /// `<data>/wal`.
    pub root: PathBuf,
    pub gateway_id: String,
    pub lanes: usize,
    pub segment_bytes: usize,
    /// Above this no segment is made, and calls are refused until some have shipped.
    pub bytes_max: u64,
    pub sync_every: Duration,
}

/// For metrics.
#[derive(Debug, Default)]
pub struct Stats {
    pub segments: AtomicU64,
    pub sync_errors: AtomicU64,
    pub allocation_errors: AtomicU64,
    pub shipped: AtomicU64,
    /// Calls settled by this process, and those an earlier one left to ship.
    pub ended: AtomicU64,
}

pub struct Log {
    options: Options,
    /// Sequence numbers and spares, shared with the keeper's thread.
    state: Mutex<State>,
    wake: Condvar,
    stop: AtomicBool,
    pub stats: Stats,
    held: Vec<Held>,
}

#[derive(Default)]
struct State {
    next_sequence: u64,
    spares: Vec<Segment>,
    /// All that are on disk, for sync and for the queue; the queue takes out what it deleted.
    live: Vec<Arc<Segment>>,
    /// Handed out, not yet seen by the queue.
    fresh: Vec<Arc<Segment>>,
}

impl Log {
    /// Takes the directories, adopts what earlier processes left, and starts the keeper's thread.
    ///
    /// # Errors
    /// When a directory cannot be used or the first segments cannot be made.
    pub fn start(options: Options) -> Result<(Arc<Self>, Queue), LogError> {
        let held = claim(&options.root)?;
        let mut old = Vec::new();
        for dir in &held {
            old.extend(left_behind(&dir.path)?.into_iter().map(Arc::new));
        }
        let next_sequence = old.iter().map(|s| s.sequence + 1).max().unwrap_or(0);
        let state = State { next_sequence, live: old.clone(), ..State::default() };
        let (stop, stats, wake) = (AtomicBool::new(false), Stats::default(), Condvar::new());
        let log = Arc::new(Self { options, state: Mutex::new(state), wake, stop, stats, held });
        log.stats.segments.store(old.len() as u64, Ordering::Relaxed);
        log.refill(&mut log.lock()).map_err(|e| LogError::NoRoom(log.options.segment_bytes, log.options.root.clone(), e))?;
        let keeper = log.clone();
        let spawned = std::thread::Builder::new().name("wal-keeper".into()).spawn(move || keeper.keep());
        spawned.map_err(|e| LogError::Io(log.options.root.clone(), e))?;
        let queue = Queue::new(log.clone(), old);
        Ok((log, queue))
    }

    #[must_use]
    pub fn lane(self: &Arc<Self>) -> Lane {
        Lane::new(self.clone())
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

    /// Last sync, then the thread ends.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_all();
        self.sync();
    }

    pub(crate) fn next_segment(&self, needed: usize) -> Option<Arc<Segment>> {
        if needed > self.options.segment_bytes {
            return None;
        }
        let mut state = self.lock();
        let segment = Arc::new(state.spares.pop()?);
        self.wake.notify_all();
        state.live.push(segment.clone());
        state.fresh.push(segment.clone());
        Some(segment)
    }

    pub(crate) fn take_fresh(&self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut self.lock().fresh)
    }

    /// Everything in it is acknowledged.
    pub(crate) fn delete(&self, segment: &Arc<Segment>) {
        self.lock().live.retain(|s| !Arc::ptr_eq(s, segment));
        if let Err(error) = std::fs::remove_file(&segment.path) {
            tracing::error!(path = %segment.path.display(), "a shipped segment could not be deleted: {error}");
        }
        self.stats.segments.fetch_sub(1, Ordering::Relaxed);
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, and segments are valid at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self) {
        let mut told = false;
        while !self.stop.load(Ordering::Acquire) {
            self.sync();
            let mut state = self.lock();
            match self.refill(&mut state) {
                Ok(()) => told = false,
                Err(error) if !told => {
                    told = true;
                    tracing::error!("no segment for the usage log could be made; calls are refused when the current ones are full: {error}");
                }
                Err(_) => {}
            }
            drop(self.wake.wait_timeout(state, self.options.sync_every));
        }
    }

    fn sync(&self) {
        let live: Vec<_> = self.lock().live.clone();
        for segment in live {
            if let Err(error) = segment.sync() {
                self.stats.sync_errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(path = %segment.path.display(), "the usage log could not be synced, its segment is given up: {error}");
            }
        }
    }

    /// One spare for each lane and one more.
    fn refill(&self, state: &mut State) -> std::io::Result<()> {
        while state.spares.len() <= self.options.lanes {
            let bytes = self.bytes() + self.options.segment_bytes as u64;
            let made = if bytes > self.options.bytes_max {
                Err(std::io::Error::other("the limit of the log's size is reached"))
            } else {
                Segment::create(&self.held[0].path, state.next_sequence, self.options.segment_bytes, &self.options.gateway_id)
            };
            let segment = made.inspect_err(|_| {
                self.stats.allocation_errors.fetch_add(1, Ordering::Relaxed);
            })?;
            state.next_sequence += 1;
            state.spares.push(segment);
            self.stats.segments.fetch_add(1, Ordering::Relaxed);
        }
        // Handed out in order of sequence: recovery reads by it, and a call's settle never lies before its open.
        state.spares.sort_by_key(|s| std::cmp::Reverse(s.sequence));
        Ok(())
    }
}
