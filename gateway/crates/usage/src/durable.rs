//! Waiting for the disk, for records that must survive a power failure. Who waits is served by the keeper's next sync, which begins at once
//! when none runs; whoever comes while one runs goes together into the next.

use crate::keeper::Log;
use crate::segment::Segment;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// The disk refused: what was written is in the system's memory, and may not be anywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the usage log could not be brought to the disk")]
pub struct NotSynced;

/// A place in the log.
pub struct Mark {
    log: Arc<Log>,
    segment: Arc<Segment>,
    at: usize,
}

impl Mark {
    pub(crate) fn new(log: Arc<Log>, segment: Arc<Segment>, at: usize) -> Self {
        Self { log, segment, at }
    }

    /// Ready when everything before the mark is on the disk.
    ///
    /// # Errors
    /// When the disk refused it.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), NotSynced>> {
        if let Some(end) = self.look() {
            return Poll::Ready(end);
        }
        self.log.wake_after_sync(cx.waker());
        // A sync that ended between the two looks may have been the one that would have woken us.
        self.look().map_or(Poll::Pending, Poll::Ready)
    }

    fn look(&self) -> Option<Result<(), NotSynced>> {
        if self.segment.synced.load(Ordering::Acquire) >= self.at {
            return Some(Ok(()));
        }
        self.segment.failed.load(Ordering::Acquire).then_some(Err(NotSynced))
    }
}
