//! A thread's lane into the usage log.

use crate::base::limits::WhenLogFull;
use crate::reactor::shared::SharedState;
use tenon_usage::{Lane, SyncPoint};

pub struct Metering {
    pub lane: Lane,
    when_log_full: WhenLogFull,
    settle_on_disk: bool,
}

impl Metering {
    pub fn new(shared: &SharedState) -> Self {
        let limits = &shared.limits;
        Self { lane: shared.log.lane(), when_log_full: limits.when_log_full, settle_on_disk: limits.settle_on_disk }
    }

    /// Calls that the log has no room for are served without a record.
    pub fn serves_unmetered(&self) -> bool {
        self.when_log_full == WhenLogFull::ServeUnmetered
    }

    /// Where the last settlement is in the log, for an answer that must wait until it is on the disk.
    pub fn mark(&self) -> Option<SyncPoint> {
        if self.settle_on_disk { self.lane.sync_point() } else { None }
    }
}
