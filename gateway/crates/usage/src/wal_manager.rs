//! Starts and stops the log, and runs its two threads: one creates segments ahead, the other syncs them.
//!
//! Two threads, because a disk that takes seconds for a sync must not leave the reactors without a segment.

use crate::directories::{LogError, create, lock_unowned, read_segments};
use crate::log::{Log, LogOptions, State};
use crate::processes::{self, EarlierProcesses};
use crate::record_id::RecordId;
use crate::segment::Segment;
use crate::shipper::Shipper;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

/// In addition to one for each lane: with segments of 8 MiB, enough for two seconds of 30,000 calls each.
const SPARES_MAX: usize = 4;
/// Room that comes back is noticed this soon even if nobody wakes the thread.
const REFILL_INTERVAL: Duration = Duration::from_millis(50);
/// How soon the log of a process that ended beside this one is taken over.
const ADOPTION_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is no new segment.
enum NoSegment {
    SizeLimit,
    Disk(LogError),
}

impl std::fmt::Display for NoSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SizeLimit => f.write_str("the log has reached its maximum size"),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl Log {
    /// Locks the directories, adopts what earlier processes left, and starts the threads. A full log or disk is no
    /// error: lanes then return [`crate::lane::LogFull`] until there is room.
    ///
    /// # Errors
    /// When a directory cannot be used or a segment cannot be created for another reason.
    pub fn start(options: LogOptions) -> Result<(Arc<Self>, Shipper), LogError> {
        let log = Arc::new(Self::new(options, RecordId::mint(now_unix_ms())));
        match log.adopt() {
            Err(error) if !error.is_out_of_space() => return Err(error),
            _ => {}
        }
        let abandoned = log.take_new().1;
        // Reads the old segments and deletes at once those that are acknowledged: the first segments may need that
        // room.
        let shipper = Shipper::new(log.clone(), abandoned);
        match log.refill() {
            Err(NoSegment::Disk(error)) if !error.is_out_of_space() => return Err(error),
            Err(reason) => {
                log.stats.is_full.store(true, Ordering::Relaxed);
                tracing::error!("the usage log has no room at start, so calls are not metered until it has: {reason}");
            }
            Ok(()) => {}
        }
        for (name, work) in [("wal-manager", Self::run_refill as fn(&Self)), ("wal-sync", Self::run_sync)] {
            let log = log.clone();
            let root = log.options.root.clone();
            let spawned = std::thread::Builder::new().name(name.into()).spawn(move || work(&log));
            spawned.map_err(|e| LogError::Io(root, e))?;
        }
        Ok((log, shipper))
    }

    /// Syncs a last time and ends the threads.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        self.refill_needed.notify_all();
        self.sync_needed.notify_all();
        self.sync();
    }

    fn run_refill(&self) {
        let mut is_logged = false;
        let mut adopted = Instant::now();
        while !self.is_stopping.load(Ordering::Acquire) {
            if adopted.elapsed() >= ADOPTION_INTERVAL {
                adopted = Instant::now();
                if let Err(error) = self.adopt() {
                    tracing::debug!("abandoned parts of the usage log could not be adopted: {error}");
                }
            }
            let refilled = self.refill();
            if let Err(reason) = &refilled
                && !is_logged
            {
                tracing::error!("no segment of the usage log could be created, so calls are not metered once the current ones are full: {reason}");
            }
            is_logged = refilled.is_err();
            let state = self.lock();
            if is_logged || state.spares.len() >= self.spares_target() {
                drop(self.refill_needed.wait_timeout(state, REFILL_INTERVAL));
            }
        }
    }

    fn run_sync(&self) {
        while !self.is_stopping.load(Ordering::Acquire) {
            self.sync();
            let state = self.lock();
            if state.sync_wakers.is_empty() {
                drop(self.sync_needed.wait_timeout(state, self.options.sync_every));
            }
        }
        self.sync();
    }

    fn sync(&self) {
        let (live, wakers) = {
            let mut state = self.lock();
            (state.live.clone(), std::mem::take(&mut state.sync_wakers))
        };
        for segment in live {
            if let Err(error) = segment.sync(&self.options.disk) {
                self.stats.sync_errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(path = %segment.path.display(), "a segment of the usage log could not be synced and is not written to any more: {error}");
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes over the directories of processes that are gone.
    fn adopt(&self) -> Result<(), LogError> {
        let mut locked = lock_unowned(&self.options.root, &self.lock().directories)?;
        if locked.is_empty() && self.lock().directories.is_empty() {
            locked.push(create(&self.options.root)?);
        }
        for directory in locked {
            let old: Vec<_> = read_segments(&directory.path)?.into_iter().map(Arc::new).collect();
            self.stats.segments.fetch_add(old.len() as u64, Ordering::Relaxed);
            let mut state = self.lock();
            state.next_sequence = old.iter().map(|s| s.sequence + 1).fold(state.next_sequence, u64::max);
            state.live.extend_from_slice(&old);
            let adopted = EarlierProcesses { dir: directory.path.clone(), ids: processes::read(&directory.path), segments: old.len() };
            if state.directories.is_empty() {
                processes::write(&directory.path, &[&adopted.ids[..], &[self.process_id()]].concat());
            }
            let State { earlier, shipped_processes, .. } = &mut *state;
            processes::record_adoption(earlier, adopted, shipped_processes);
            state.abandoned.extend(old);
            state.directories.push(directory);
        }
        Ok(())
    }

    /// One spare for each lane and a few more, because allocating takes the disk's time: a few seconds of writing, or
    /// an eighth of a small log.
    fn spares_target(&self) -> usize {
        let eighth = self.options.bytes_max / (self.options.segment_bytes as u64).max(1) / 8;
        self.options.lanes + usize::try_from(eighth).unwrap_or(SPARES_MAX).clamp(1, SPARES_MAX)
    }

    /// Creates the spares that are missing, outside the lock.
    fn refill(&self) -> Result<(), NoSegment> {
        while self.lock().spares.len() < self.spares_target() {
            let segment = self.create_segment().inspect_err(|_| {
                self.stats.allocation_errors.fetch_add(1, Ordering::Relaxed);
            })?;
            let mut state = self.lock();
            state.spares.push(segment);
            // Taken in order of sequence: recovery reads by it, and a call's settle never lies before its open.
            state.spares.sort_by_key(|s| std::cmp::Reverse(s.sequence));
            self.stats.is_full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn create_segment(&self) -> Result<Segment, NoSegment> {
        let LogOptions { root, gateway_id, segment_bytes, bytes_max, disk, .. } = &self.options;
        if self.bytes() + *segment_bytes as u64 > *bytes_max {
            return Err(NoSegment::SizeLimit);
        }
        let (directory, sequence) = {
            let mut state = self.lock();
            let sequence = state.next_sequence;
            state.next_sequence += 1;
            (state.directories.first().map(|directory| directory.path.clone()), sequence)
        };
        let directory = match directory {
            Some(directory) => directory,
            None => {
                self.adopt().map_err(NoSegment::Disk)?;
                return self.create_segment();
            }
        };
        let fail = |e| NoSegment::Disk(LogError::NoRoom(*segment_bytes, root.clone(), e));
        let segment = Segment::create(&directory, sequence, *segment_bytes, (gateway_id, self.process_id()), disk).map_err(fail)?;
        self.stats.segments.fetch_add(1, Ordering::Relaxed);
        Ok(segment)
    }
}

/// Used for ids only: a wrong clock makes them odd, not equal.
fn now_unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}
