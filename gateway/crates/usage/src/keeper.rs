//! The log as a whole: segments made ahead, synced in the background, counted, and handed to the queue.
//!
//! Two threads: one makes segments, one syncs them. A disk that takes seconds for a sync must not leave the reactors without a segment.

use crate::directory::{Held, LogError, claim, left_behind, make};
use crate::lane::Lane;
use crate::processes::{self, Earlier};
use crate::queue::Queue;
use crate::record_id::RecordId;
use crate::segment::{Disk, Segment};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// Beside one for each lane: with segments of 8 MiB, two seconds of 30,000 calls each.
const SPARES: usize = 4;
/// Room that came back is found this soon even if nobody told.
const REFILL_EVERY: Duration = Duration::from_millis(50);
/// How soon the log of a process that ended beside this one is taken over.
const LOOK_FOR_ABANDONED_EVERY: Duration = Duration::from_secs(1);

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
    /// How long a segment may not know which of its calls were acknowledged. Mostly it is given up before that, and a mark for each call would bring
    /// every page to the disk once more. A process that is killed meanwhile ships them again, under the same record ids.
    pub mark_after: Duration,
    pub disk: Disk,
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
    /// Somebody asked for a segment and there was none; until there is one again.
    pub is_full: AtomicBool,
}

pub struct Log {
    pub(crate) options: Options,
    /// Sequence numbers and spares, shared with the keeper's thread. Held for moments only: reactors take it.
    state: Mutex<State>,
    wake: Condvar,
    wake_sync: Condvar,
    stop: AtomicBool,
    /// This run.
    process_id: RecordId,
    pub stats: Stats,
}

#[derive(Default)]
struct State {
    /// The first is the one written to; none while a full disk gives not even a directory.
    held: Vec<Held>,
    next_sequence: u64,
    spares: Vec<Segment>,
    /// All that are on disk, for sync and for the queue; the queue takes out what it deleted.
    live: Vec<Arc<Segment>>,
    /// Handed out, not yet seen by the queue.
    fresh: Vec<Arc<Segment>>,
    /// Of processes that ended, not yet seen by the queue.
    abandoned: Vec<Arc<Segment>>,
    /// To be woken by the next sync that begins from now on.
    waiting: Vec<Waker>,
    /// Processes that are gone, by the directory that held their records.
    earlier: Vec<Earlier>,
    /// Those of them whose records are all acknowledged, not yet told.
    shipped: Vec<RecordId>,
}

/// Why there is no new segment.
enum NoSegment {
    Limit,
    Disk(LogError),
}

impl Log {
    /// Takes the directories, adopts what earlier processes left, and starts the keeper's thread. A log or a disk that is full is no error:
    /// lanes then answer [`crate::Full`] until there is room.
    ///
    /// # Errors
    /// When a directory cannot be used or a segment cannot be made for another reason.
    pub fn start(options: Options) -> Result<(Arc<Self>, Queue), LogError> {
        let log = Arc::new(Self {
            options,
            state: Mutex::default(),
            wake: Condvar::new(),
            wake_sync: Condvar::new(),
            stop: AtomicBool::new(false),
            process_id: RecordId::mint(now_unix_ms()),
            stats: Stats::default(),
        });
        match log.adopt() {
            Err(error) if !error.is_for_room() => return Err(error),
            _ => {}
        }
        let old = log.take_new().1;
        // Reads them, and gives up at once what nobody waits for: that may be the room the first segments need.
        let queue = Queue::new(log.clone(), old);
        match log.refill() {
            Err(NoSegment::Disk(error)) if !error.is_for_room() => return Err(error),
            Err(reason) => {
                log.stats.is_full.store(true, Ordering::Relaxed);
                tracing::error!("the usage log has no room at start; calls are not metered until it has: {reason}");
            }
            Ok(()) => {}
        }
        for (name, work) in [("wal-keeper", Self::keep as fn(&Self)), ("wal-sync", Self::sync_for_ever)] {
            let log = log.clone();
            let root = log.options.root.clone();
            let spawned = std::thread::Builder::new().name(name.into()).spawn(move || work(&log));
            spawned.map_err(|e| LogError::Io(root, e))?;
        }
        Ok((log, queue))
    }

    #[must_use]
    pub fn lane(self: &Arc<Self>) -> Lane {
        Lane::new(self.clone())
    }

    /// Of this run: it stands in every record, and leases belong to it.
    #[must_use]
    pub fn process_id(&self) -> RecordId {
        self.process_id
    }

    pub(crate) fn take_shipped_processes(&self) -> Vec<RecordId> {
        std::mem::take(&mut self.lock().shipped)
    }

    pub(crate) fn forget_process(&self, id: &str) {
        let state = self.lock();
        for earlier in state.earlier.iter().filter(|earlier| earlier.ids.iter().any(|known| *known.text() == *id)) {
            let own = state.held.first().filter(|held| held.path == earlier.dir).map(|_| self.process_id);
            let left: Vec<_> = processes::read(&earlier.dir).into_iter().filter(|known| *known.text() != *id || Some(*known) == own).collect();
            processes::write(&earlier.dir, &left);
        }
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

    /// Last sync, then the threads end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_all();
        self.wake_sync.notify_all();
        self.sync();
    }

    pub(crate) fn next_segment(&self, needed: usize) -> Option<Arc<Segment>> {
        if needed > self.options.segment_bytes {
            return None;
        }
        let mut state = self.lock();
        let Some(segment) = state.spares.pop().map(Arc::new) else {
            self.stats.is_full.store(true, Ordering::Relaxed);
            return None;
        };
        self.wake.notify_all();
        state.live.push(segment.clone());
        state.fresh.push(segment.clone());
        Some(segment)
    }

    /// What the queue has not seen: segments begun by this process, and those of processes that are gone.
    pub(crate) fn take_new(&self) -> (Vec<Arc<Segment>>, Vec<Arc<Segment>>) {
        let mut state = self.lock();
        (std::mem::take(&mut state.fresh), std::mem::take(&mut state.abandoned))
    }

    /// Everything in it is acknowledged.
    pub(crate) fn delete(&self, segment: &Arc<Segment>) {
        let mut state = self.lock();
        state.live.retain(|s| !Arc::ptr_eq(s, segment));
        if segment.process_id != self.process_id {
            let State { earlier, shipped, .. } = &mut *state;
            processes::deleted(earlier, &segment.path, shipped);
        }
        drop(state);
        if let Err(error) = std::fs::remove_file(&segment.path) {
            tracing::error!(path = %segment.path.display(), "a shipped segment could not be deleted: {error}");
        }
        self.stats.segments.fetch_sub(1, Ordering::Relaxed);
        self.wake.notify_all();
    }

    pub(crate) fn wake_after_sync(&self, waker: &Waker) {
        self.lock().waiting.push(waker.clone());
        self.wake_sync.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it, and segments are valid at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self) {
        let mut told = false;
        let mut looked = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            if looked.elapsed() >= LOOK_FOR_ABANDONED_EVERY {
                looked = Instant::now();
                if let Err(error) = self.adopt() {
                    tracing::debug!("abandoned parts of the usage log were not looked for: {error}");
                }
            }
            let refilled = self.refill();
            if let Err(reason) = &refilled
                && !told
            {
                tracing::error!("no segment for the usage log could be made; calls are not metered when the current ones are full: {reason}");
            }
            told = refilled.is_err();
            let state = self.lock();
            if told || state.spares.len() >= self.spares() {
                drop(self.wake.wait_timeout(state, REFILL_EVERY));
            }
        }
    }

    fn sync_for_ever(&self) {
        while !self.stop.load(Ordering::Acquire) {
            self.sync();
            let state = self.lock();
            if state.waiting.is_empty() {
                drop(self.wake_sync.wait_timeout(state, self.options.sync_every));
            }
        }
        self.sync();
    }

    fn sync(&self) {
        let (live, waiting) = {
            let mut state = self.lock();
            (state.live.clone(), std::mem::take(&mut state.waiting))
        };
        for segment in live {
            if let Err(error) = segment.sync(&self.options.disk) {
                self.stats.sync_errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(path = %segment.path.display(), "the usage log could not be synced, its segment is given up: {error}");
            }
        }
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Takes over the directories of processes that are gone.
    fn adopt(&self) -> Result<(), LogError> {
        let mut claimed = claim(&self.options.root, &self.lock().held)?;
        if claimed.is_empty() && self.lock().held.is_empty() {
            claimed.push(make(&self.options.root)?);
        }
        for dir in claimed {
            let old: Vec<_> = left_behind(&dir.path)?.into_iter().map(Arc::new).collect();
            self.stats.segments.fetch_add(old.len() as u64, Ordering::Relaxed);
            let mut state = self.lock();
            state.next_sequence = old.iter().map(|s| s.sequence + 1).fold(state.next_sequence, u64::max);
            state.live.extend_from_slice(&old);
            let earlier = Earlier { dir: dir.path.clone(), ids: processes::read(&dir.path), segments: old.len() };
            if state.held.is_empty() {
                processes::write(&dir.path, &[&earlier.ids[..], &[self.process_id]].concat());
            }
            let State { earlier: known, shipped, .. } = &mut *state;
            processes::adopted(known, earlier, shipped);
            state.abandoned.extend(old);
            state.held.push(dir);
        }
        Ok(())
    }

    /// One spare for each lane and some more, for allocating takes the disk's time: a few seconds' writing, or an eighth of a small log.
    fn spares(&self) -> usize {
        let eighth = self.options.bytes_max / (self.options.segment_bytes as u64).max(1) / 8;
        self.options.lanes + usize::try_from(eighth).unwrap_or(SPARES).clamp(1, SPARES)
    }

    /// Made outside the lock.
    fn refill(&self) -> Result<(), NoSegment> {
        while self.lock().spares.len() < self.spares() {
            let segment = self.make_segment().inspect_err(|_| {
                self.stats.allocation_errors.fetch_add(1, Ordering::Relaxed);
            })?;
            let mut state = self.lock();
            state.spares.push(segment);
            // Handed out in order of sequence: recovery reads by it, and a call's settle never lies before its open.
            state.spares.sort_by_key(|s| std::cmp::Reverse(s.sequence));
            self.stats.is_full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn make_segment(&self) -> Result<Segment, NoSegment> {
        let Options { root, gateway_id, segment_bytes, bytes_max, disk, .. } = &self.options;
        if self.bytes() + *segment_bytes as u64 > *bytes_max {
            return Err(NoSegment::Limit);
        }
        let (dir, sequence) = {
            let mut state = self.lock();
            let sequence = state.next_sequence;
            state.next_sequence += 1;
            (state.held.first().map(|held| held.path.clone()), sequence)
        };
        let dir = match dir {
            Some(dir) => dir,
            None => {
                self.adopt().map_err(NoSegment::Disk)?;
                return self.make_segment();
            }
        };
        let fail = |e| NoSegment::Disk(LogError::NoRoom(*segment_bytes, root.clone(), e));
        let segment = Segment::create(&dir, sequence, *segment_bytes, (gateway_id, self.process_id), disk).map_err(fail)?;
        self.stats.segments.fetch_add(1, Ordering::Relaxed);
        Ok(segment)
    }
}

impl std::fmt::Display for NoSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Limit => f.write_str("the limit of the log's size is reached"),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

/// Only for ids: a clock that is wrong makes them odd, not equal.
fn now_unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}
