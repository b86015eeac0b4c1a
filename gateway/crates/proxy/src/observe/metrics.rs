//! Counters of one thread, summed when they are read. Each has one writer, so a load and a store suffice: no locked instructions.

use crate::observe::retry_reason::RETRIES;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tenon_problem::ProblemCode;

/// By `Operation`'s number; the last is for requests that call no model.
pub const OPERATIONS: [&str; 14] = [
    "other",
    "chat",
    "completion",
    "embedding",
    "response",
    "message",
    "count_tokens",
    "rerank",
    "speech",
    "transcription",
    "image",
    "realtime",
    "infer",
    "models",
];
pub const MODELS: usize = 13;
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
pub const OUTCOMES: [&str; 7] = ["unspecified", "completed", "upstream_error", "client_gone", "timeout", "unknown", "cut"];
pub const TOKENS: [&str; 5] = ["input", "output", "cache_read", "cache_write", "reasoning"];
pub const FAILURES: [&str; 4] = ["connect", "stale_connection", "send", "timeout"];
/// Upper bounds in seconds; the last bucket is everything.
pub const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];
#[derive(Debug)]
pub struct Histogram {
    pub buckets: [AtomicU64; BUCKETS.len() + 1],
    pub sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS.len() + 1], sum_us: AtomicU64::new(0) }
    }
}

/// An array that can be longer than those with a default of their own.
#[derive(Debug)]
pub struct Counters<const N: usize>(pub [AtomicU64; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

/// Aligned so that two threads never share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ThreadMetrics {
    pub requests: [[AtomicU64; CLASSES.len()]; OPERATIONS.len()],
    /// By code.
    pub refusals: Counters<{ ProblemCode::ALL.len() }>,
    pub outcomes: [AtomicU64; OUTCOMES.len()],
    pub tokens: [AtomicU64; TOKENS.len()],
    pub failures: [AtomicU64; FAILURES.len()],
    pub duration: Histogram,
    pub first_token: Histogram,
    /// Of calls that waited for a saturated endpoint, served or not.
    pub queue_wait: Histogram,
    pub retries: [AtomicU64; RETRIES.len()],
    pub connections: AtomicU64,
    /// Calls that run, as of the last sweep.
    pub calls: AtomicU64,
    pub log_entries_suppressed: AtomicU64,
    /// Connections refused over the limit, and callers disconnected because they did not read their answer.
    pub connections_refused: AtomicU64,
    pub callers_stalled: AtomicU64,
    /// Answers read on after their caller left.
    pub drained: AtomicU64,
    /// Calls that were served although the log had no room for them.
    pub unmetered: AtomicU64,
}

pub type Metrics = std::sync::Arc<[ThreadMetrics]>;

pub fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

impl ThreadMetrics {
    pub fn request(&self, operation: usize, status: u16) {
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        bump(&self.requests[operation][class], 1);
    }

    pub fn refusal(&self, code: ProblemCode) {
        bump(&self.refusals.0[code as usize], 1);
    }
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        bump(&self.buckets[bucket], 1);
        bump(&self.sum_us, u64::try_from(duration.as_micros()).unwrap_or(0));
    }
}
