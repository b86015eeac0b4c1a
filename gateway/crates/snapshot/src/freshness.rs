//! The last contact with the control plane. A monotonic clock serves for deadlines of seconds, and the wall clock for
//! the limit of a day, which must survive the process.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 if the clock is set before it.
#[must_use]
pub fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Written by the control thread and read by the reactors.
#[derive(Debug)]
pub struct Freshness {
    start: Instant,
    last_contact_ms: AtomicU64, // since `start`, plus one; 0 = never in this process
    last_contact_unix_ms: AtomicI64,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { start: Instant::now(), last_contact_ms: AtomicU64::new(0), last_contact_unix_ms: AtomicI64::new(0) }
    }
}

impl Freshness {
    pub fn record_contact(&self) {
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_contact_ms.store(since + 1, Ordering::Relaxed);
        self.last_contact_unix_ms.store(unix_ms(), Ordering::Relaxed);
    }

    /// Restores what an earlier process saved to disk.
    pub fn restore(&self, unix_ms: i64) {
        self.last_contact_unix_ms.store(unix_ms, Ordering::Relaxed);
    }

    /// Time since the last contact of this process with the control plane; `None` = never.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let last_contact = self.last_contact_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.start.elapsed().saturating_sub(Duration::from_millis(last_contact)))
    }

    #[must_use]
    pub fn last_contact_unix_ms(&self) -> i64 {
        self.last_contact_unix_ms.load(Ordering::Relaxed)
    }
}
