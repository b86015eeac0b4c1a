//! Every size, count and time.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tenon_snapshot::Timeouts;

/// Bytes held by the request bodies of all threads. Bodies that came whole with their heads are not counted: they are in their connection's buffer.
pub type BodyMemory = Arc<AtomicUsize>;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub body_bytes_max: usize,
    /// Of all threads' bodies together.
    pub body_memory_max: usize,
    /// From the first wait for the body to its end.
    pub body_read: Duration,
    /// Between two pieces of it.
    pub body_idle: Duration,
    /// How long a caller may take nothing of its answer.
    pub caller_stall: Duration,
    pub head_bytes_max: usize,
    /// Answers that are read to their end for their usage after their caller left: for how long, and how many at a time.
    pub abort_drain: Duration,
    pub abort_drains_max_per_thread: usize,
    /// A caller's connection that sends nothing, or half a head.
    pub connection_idle: Duration,
    pub connections_max_per_thread: usize,
    /// Upstream connections kept for the next call, for each origin and thread.
    pub pool_idle_max: usize,
    pub upstream: Timeouts,
    /// How long a call waits for a saturated endpoint, where its model does not say.
    pub queue_wait: Duration,
    /// Tokens that fail their check, for each source address and thread; 0 = any number is checked.
    pub forged_tokens_per_second: u32,
    /// How long keys stay valid without an answer from the control plane.
    pub staleness_max: Duration,
    pub when_log_full: WhenLogFull,
    /// `x-ratelimit-*` on every answer, not only on refusals.
    pub openai_limit_headers: bool,
    /// The end of an answer waits until its usage record is on the disk.
    pub settle_on_disk: bool,
}

/// What happens to calls that the usage log has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenLogFull {
    #[default]
    Refuse,
    /// They are served and counted, without a record.
    ServeUnmetered,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 20 << 20,
            body_memory_max: 512 << 20,
            body_read: Duration::from_secs(30),
            body_idle: Duration::from_secs(10),
            caller_stall: Duration::from_secs(60),
            head_bytes_max: 64 << 10,
            abort_drain: Duration::from_secs(60),
            abort_drains_max_per_thread: 256,
            connection_idle: Duration::from_secs(75),
            connections_max_per_thread: 20_000,
            pool_idle_max: 256,
            queue_wait: Duration::from_secs(30),
            upstream: Timeouts {
                connect: Duration::from_secs(5),
                headers: Duration::from_secs(600),
                first_token: Duration::from_secs(600),
                idle: Duration::from_secs(120),
                total: Duration::from_secs(3600),
            },
            forged_tokens_per_second: 5,
            staleness_max: Duration::from_secs(24 * 3600),
            when_log_full: WhenLogFull::Refuse,
            openai_limit_headers: false,
            settle_on_disk: false,
        }
    }
}

impl Limits {
    /// The endpoint's timeouts, the gateway's where it has none.
    #[must_use]
    pub fn timeouts(&self, of: &Timeouts) -> Timeouts {
        let or = |own: Duration, default: Duration| if own.is_zero() { default } else { own };
        Timeouts {
            connect: or(of.connect, self.upstream.connect),
            headers: or(of.headers, self.upstream.headers),
            first_token: or(of.first_token, self.upstream.first_token),
            idle: or(of.idle, self.upstream.idle),
            total: or(of.total, self.upstream.total),
        }
    }
}
