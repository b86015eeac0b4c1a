//! One log entry for each request that failed or was unusual. Their number a second is limited, so that a flood of refusals does not fill a
//! disk; refusals have their own share, so that they do not hide failures.

use crate::observe::metrics::{ThreadMetrics, bump};
use crate::observe::trace_context::TraceContext;
use std::cell::Cell;
use std::time::{Duration, Instant};
use tenon_problem::ProblemCode;
use tenon_usage::RecordId;
use tracing::Level;

/// For each reactor, of failures and of what is merely unusual.
const ENTRIES_PER_SECOND_MAX: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// Ids, numbers and our own texts. `detail` is what a library or the system reported about a connection.
pub struct Entry<'a> {
    pub id: RecordId,
    pub trace: &'a TraceContext,
    pub outcome: &'static str,
    /// Zero = the caller got no answer.
    pub status: u16,
    pub code: Option<ProblemCode>,
    pub endpoint_id: Option<&'a str>,
    pub attempts: u8,
    pub took: Duration,
    pub detail: Option<&'a str>,
    /// The gateway's or the endpoint's, not the caller's.
    pub is_failure: bool,
}

pub struct AccessLog {
    failures: Share,
    notices: Share,
}

struct Share {
    since: Cell<Instant>,
    entries: Cell<u32>,
    /// Since the last entry that was written.
    suppressed: Cell<u64>,
}

impl AccessLog {
    pub fn new(now: Instant) -> Self {
        Self { failures: Share::new(now), notices: Share::new(now) }
    }

    pub fn write(&self, entry: &Entry<'_>, now: Instant, metrics: &ThreadMetrics) {
        let (share, is_enabled) =
            if entry.is_failure { (&self.failures, tracing::enabled!(Level::WARN)) } else { (&self.notices, tracing::enabled!(Level::INFO)) };
        if !is_enabled {
            return;
        }
        match share.admit(now) {
            Some(suppressed) => entry.write(suppressed),
            None => bump(&metrics.log_entries_suppressed, 1),
        }
    }
}

impl Share {
    fn new(now: Instant) -> Self {
        Self { since: Cell::new(now), entries: Cell::new(0), suppressed: Cell::new(0) }
    }

    /// How many entries were suppressed before this one; `None` = so is this.
    fn admit(&self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since.get()) >= SECOND {
            self.since.set(now);
            self.entries.set(0);
        }
        if self.entries.get() >= ENTRIES_PER_SECOND_MAX {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.entries.set(self.entries.get() + 1);
        Some(self.suppressed.take())
    }
}

macro_rules! write_entry {
    ($level:ident, $entry:expr, $suppressed:expr, $message:literal) => {
        tracing::$level!(
            request_id = &*$entry.id.text(),
            trace_id = $entry.trace.text(),
            outcome = $entry.outcome,
            status = $entry.status,
            code = $entry.code.map(ProblemCode::text),
            endpoint_id = $entry.endpoint_id,
            attempts = $entry.attempts,
            duration_ms = u64::try_from($entry.took.as_millis()).unwrap_or(u64::MAX),
            detail = $entry.detail,
            suppressed_before = ($suppressed > 0).then_some($suppressed),
            $message
        )
    };
}

impl Entry<'_> {
    fn write(&self, suppressed: u64) {
        match (self.is_failure, self.outcome) {
            (true, _) => write_entry!(warn, self, suppressed, "call failed"),
            (false, "refused") => write_entry!(info, self, suppressed, "request refused"),
            (false, _) => write_entry!(info, self, suppressed, "unusual call"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_entries_and_the_next_counts_the_suppressed() {
        let start = Instant::now();
        let share = Share::new(start);
        let admitted = (0..50).filter(|_| share.admit(start).is_some()).count();
        assert_eq!(admitted, ENTRIES_PER_SECOND_MAX as usize);
        assert_eq!(share.admit(start + SECOND), Some(50 - u64::from(ENTRIES_PER_SECOND_MAX)));
        assert_eq!(share.admit(start + SECOND), Some(0));
    }
}
