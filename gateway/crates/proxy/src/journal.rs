//! The log's one line for each request that failed or was unusual. So many a second at most: a flood of refusals must not fill a disk, and
//! refusals have their own share, so that they do not hide failures.

use crate::metrics::{ThreadMetrics, bump};
use crate::trace::Trace;
use std::cell::Cell;
use std::time::{Duration, Instant};
use tenon_usage::RecordId;
use tracing::Level;

/// For each reactor, of failures and of what is merely unusual.
const LINES_A_SECOND_MAX: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// Ids, numbers and our own words. `detail` is what a library or the system said about a connection.
pub struct Line<'a> {
    pub id: RecordId,
    pub trace: &'a Trace,
    pub outcome: &'static str,
    /// Zero = the caller got none.
    pub status: u16,
    pub code: Option<&'static str>,
    pub endpoint_id: Option<&'a str>,
    pub attempts: u8,
    pub took: Duration,
    pub detail: Option<&'a str>,
    /// Ours or the upstream's, not the caller's.
    pub is_failure: bool,
}

pub struct Journal {
    failures: Share,
    notices: Share,
}

struct Share {
    since: Cell<Instant>,
    lines: Cell<u32>,
    /// Since the last line that was written.
    suppressed: Cell<u64>,
}

impl Journal {
    pub fn new(now: Instant) -> Self {
        Self { failures: Share::new(now), notices: Share::new(now) }
    }

    pub fn tell(&self, line: &Line<'_>, now: Instant, metrics: &ThreadMetrics) {
        let (share, wanted) =
            if line.is_failure { (&self.failures, tracing::enabled!(Level::WARN)) } else { (&self.notices, tracing::enabled!(Level::INFO)) };
        if !wanted {
            return;
        }
        match share.admit(now) {
            Some(suppressed) => line.write(suppressed),
            None => bump(&metrics.lines_suppressed, 1),
        }
    }
}

impl Share {
    fn new(now: Instant) -> Self {
        Self { since: Cell::new(now), lines: Cell::new(0), suppressed: Cell::new(0) }
    }

    /// How many lines were suppressed before this one; `None` = so is this.
    fn admit(&self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since.get()) >= SECOND {
            self.since.set(now);
            self.lines.set(0);
        }
        if self.lines.get() >= LINES_A_SECOND_MAX {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.lines.set(self.lines.get() + 1);
        Some(self.suppressed.take())
    }
}

macro_rules! write_line {
    ($level:ident, $line:expr, $suppressed:expr, $message:literal) => {
        tracing::$level!(
            request_id = &*$line.id.text(),
            trace_id = $line.trace.text(),
            outcome = $line.outcome,
            status = $line.status,
            code = $line.code,
            endpoint_id = $line.endpoint_id,
            attempts = $line.attempts,
            duration_ms = u64::try_from($line.took.as_millis()).unwrap_or(u64::MAX),
            detail = $line.detail,
            suppressed_before = ($suppressed > 0).then_some($suppressed),
            $message
        )
    };
}

impl Line<'_> {
    fn write(&self, suppressed: u64) {
        match (self.is_failure, self.outcome) {
            (true, _) => write_line!(warn, self, suppressed, "call failed"),
            (false, "refused") => write_line!(info, self, suppressed, "request refused"),
            (false, _) => write_line!(info, self, suppressed, "unusual call"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_next_tells_what_was_left_out() {
        let start = Instant::now();
        let share = Share::new(start);
        let admitted = (0..50).filter(|_| share.admit(start).is_some()).count();
        assert_eq!(admitted, LINES_A_SECOND_MAX as usize);
        assert_eq!(share.admit(start + SECOND), Some(50 - u64::from(LINES_A_SECOND_MAX)));
        assert_eq!(share.admit(start + SECOND), Some(0));
    }
}
