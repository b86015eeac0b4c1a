//! How many of the attempts of the last ten seconds failed, in eight words that any thread may write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SLOTS: u64 = 8;
const SLOT_MS: u64 = 1_250;
/// A slot's word: 20 bits of epoch, 20 of failures, 24 of attempts. No machine makes 16 million attempts in a slot.
const EPOCH_AT: u32 = 44;
const FAILURES_AT: u32 = 24;
const EPOCH_MASK: u64 = (1 << 20) - 1;

#[derive(Debug, Default)]
pub(crate) struct FailureWindow {
    slots: [AtomicU64; SLOTS as usize],
}

/// The attempts in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttemptCounts {
    pub attempts: u64,
    pub failures: u64,
}

impl FailureWindow {
    pub fn record(&self, now_ms: u64, failed: bool) {
        self.add(now_ms, 1 + (u64::from(failed) << FAILURES_AT));
    }

    /// An attempt that was recorded as good turned out to be a failure.
    pub fn turn_into_failure(&self, now_ms: u64) {
        self.add(now_ms, 1 << FAILURES_AT);
    }

    fn add(&self, now_ms: u64, by: u64) {
        let number = now_ms / SLOT_MS;
        let epoch = number & EPOCH_MASK;
        let slot = &self.slots[(number % SLOTS) as usize];
        let mut held = slot.load(Relaxed);
        loop {
            let base = if held >> EPOCH_AT == epoch { held } else { epoch << EPOCH_AT };
            match slot.compare_exchange_weak(held, base + by, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => held = other,
            }
        }
    }

    pub fn counts(&self, now_ms: u64) -> AttemptCounts {
        let current = (now_ms / SLOT_MS) & EPOCH_MASK;
        let words = self.slots.iter().map(|slot| slot.load(Relaxed));
        let fresh = words.filter(|word| (current.wrapping_sub(word >> EPOCH_AT) & EPOCH_MASK) < SLOTS);
        fresh.fold(AttemptCounts::default(), |sum, word| AttemptCounts {
            attempts: sum.attempts + (word & ((1 << FAILURES_AT) - 1)),
            failures: sum.failures + (word >> FAILURES_AT & EPOCH_MASK),
        })
    }

    pub fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_ten_seconds_is_forgotten() {
        let window = FailureWindow::default();
        for i in 0..20 {
            window.record(50_000 + i, i % 4 == 0);
        }
        assert_eq!(window.counts(50_000), AttemptCounts { attempts: 20, failures: 5 });
        assert_eq!(window.counts(58_700), AttemptCounts { attempts: 20, failures: 5 });
        assert_eq!(window.counts(60_000), AttemptCounts::default());
        window.record(60_000, true);
        assert_eq!(window.counts(60_000), AttemptCounts { attempts: 1, failures: 1 }, "a slot is used again");
    }
}
