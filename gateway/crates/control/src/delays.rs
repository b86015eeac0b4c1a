//! How long changes take from their commit in the control plane until they are in force here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds in seconds; one more bucket counts everything above.
pub const DELAY_BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Written by the control thread only.
#[derive(Debug, Default)]
pub struct Delays {
    pub buckets: [AtomicU64; DELAY_BUCKETS.len() + 1],
    pub sum_ms: AtomicU64,
}

impl Delays {
    /// Compares the clocks of two machines, so it includes their difference. A commit "in the future" counts as no
    /// delay.
    pub(crate) fn observe(&self, committed_at_unix_ms: i64, now_unix_ms: i64) {
        let ms = u64::try_from(now_unix_ms.saturating_sub(committed_at_unix_ms)).unwrap_or(0);
        #[allow(clippy::cast_precision_loss)] // milliseconds of a few years at most
        let seconds = ms as f64 / 1000.0;
        let bucket = DELAY_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(DELAY_BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ms.fetch_add(ms, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delay_is_in_its_bucket_once() {
        let delays = Delays::default();
        [5, 10, 11, 70_000].iter().for_each(|ms| delays.observe(1_000_000, 1_000_000 + ms));
        delays.observe(1_000_000, 0);
        let counts: Vec<u64> = delays.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        assert_eq!((counts[0], counts[1], counts[DELAY_BUCKETS.len()], counts.iter().sum::<u64>()), (3, 1, 1, 5));
        assert_eq!(delays.sum_ms.load(Relaxed), 70_026);
    }
}
