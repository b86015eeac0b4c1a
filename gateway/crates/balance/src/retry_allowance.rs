//! The retries that a model may spend: a share of its calls, so that retries do not multiply the load of an outage.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// In thousandths of a retry.
const RETRY: i64 = 1_000;
/// A call earns a fifth of a retry.
const EARNED: i64 = 200;
/// What a quiet model may always spend, and how fast this is restored.
const FLOOR: i64 = 10 * RETRY;
const FLOOR_PER_SECOND: i64 = RETRY;
/// What a busy model may save up.
const SAVED_MAX: i64 = 100 * RETRY;

#[derive(Debug)]
pub struct RetryAllowance {
    balance: AtomicI64,
    refilled_ms: AtomicU64,
}

impl Default for RetryAllowance {
    fn default() -> Self {
        Self { balance: AtomicI64::new(FLOOR), refilled_ms: AtomicU64::new(0) }
    }
}

impl RetryAllowance {
    /// Call it with each first attempt.
    pub fn earn(&self) {
        if self.balance.load(Relaxed) < SAVED_MAX {
            self.balance.fetch_add(EARNED, Relaxed);
        }
    }

    /// Whether another attempt may be made. If so, it is paid for.
    pub fn spend(&self, now_ms: u64) -> bool {
        self.refill(now_ms);
        if self.balance.fetch_sub(RETRY, Relaxed) >= RETRY {
            return true;
        }
        self.balance.fetch_add(RETRY, Relaxed);
        false
    }

    fn refill(&self, now_ms: u64) {
        let since = self.refilled_ms.load(Relaxed);
        let seconds = i64::try_from(now_ms.saturating_sub(since) / 1_000).unwrap_or(i64::MAX);
        if seconds == 0 || self.refilled_ms.compare_exchange(since, now_ms, Relaxed, Relaxed).is_err() {
            return;
        }
        let balance = self.balance.load(Relaxed);
        let missing = FLOOR - balance;
        if missing > 0 {
            self.balance.fetch_add(missing.min(seconds.saturating_mul(FLOOR_PER_SECOND)), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_costs_a_fifth_more_calls_and_the_floor() {
        let allowance = RetryAllowance::default();
        let retries = (0..1_000).filter(|_| {
            allowance.earn();
            allowance.spend(0)
        });
        let retries = retries.count();
        assert!((200..=211).contains(&retries), "{retries}");
        assert!(!allowance.spend(0));
        assert!(allowance.spend(1_100), "time restores the floor");
        assert!(!allowance.spend(1_100));
        assert_eq!((0..100).filter(|_| allowance.spend(3_600_000)).count(), 10, "and no more than that");
    }
}
