//! Waiting for the disk, for records that must survive a power failure. A waiting call is woken by the next sync, which
//! begins at once if none is running. Calls that arrive during a sync share the next one.

use crate::log::Log;
use crate::segment::Segment;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// The disk failed: what was written is in the system's memory, and may be nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the usage log could not be synced to the disk")]
pub struct NotSynced;

/// A position in the log.
pub struct SyncPoint {
    log: Arc<Log>,
    segment: Arc<Segment>,
    at: usize,
}

impl SyncPoint {
    pub(crate) fn new(log: Arc<Log>, segment: Arc<Segment>, at: usize) -> Self {
        Self { log, segment, at }
    }

    /// Ready when everything before this position is on the disk.
    ///
    /// # Errors
    /// When the sync failed.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), NotSynced>> {
        if let Some(result) = self.check() {
            return Poll::Ready(result);
        }
        self.log.wake_after_sync(cx.waker());
        // A sync that ended between the two checks may have been the one that would have woken us.
        self.check().map_or(Poll::Pending, Poll::Ready)
    }

    fn check(&self) -> Option<Result<(), NotSynced>> {
        if self.segment.synced.load(Ordering::Acquire) >= self.at {
            return Some(Ok(()));
        }
        self.segment.failed.load(Ordering::Acquire).then_some(Err(NotSynced))
    }
}
