//! Bounds how many invalid tokens of one source are checked: a signature check takes up to milliseconds, and sending
//! forged tokens is free.
//!
//! Each source has a debt that grows with its failures and shrinks with time. Sources share nothing, so one never
//! affects another. If more sources fail at once than there is room for, the latest ones are not bounded.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::net::IpAddr;

/// This many seconds' worth may come at once.
const BURST_SECONDS: u64 = 4;
const SOURCES_MAX: usize = 4_096;
/// Between two sweeps for sources whose debt is paid.
const SWEEP_EVERY_MS: u64 = 1_000;

/// An IPv4 address, or the IPv6 network of 64 bits, because one caller usually has all of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(u128);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() >> 64 << 64),
        }
    }
}

/// In thousandths of a token, at the time `at_ms`.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    milli: u64,
    at_ms: u64,
}

/// One for each thread.
#[derive(Debug)]
pub struct TokenFailures {
    /// 0 = no bound.
    per_second: u64,
    debts: HashMap<Source, Debt, RandomState>,
    swept_ms: u64,
}

impl TokenFailures {
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second: per_second.into(), debts: HashMap::default(), swept_ms: 0 }
    }

    /// Whether this source must wait before another of its tokens is checked. Times come from a monotonic clock.
    #[must_use]
    pub fn is_spent(&self, source: Source, now_ms: u64) -> bool {
        // Without failures nothing is looked up.
        !self.debts.is_empty() && self.debts.get(&source).is_some_and(|debt| self.left(*debt, now_ms) >= self.per_second * BURST_SECONDS * 1_000)
    }

    /// Counts checks of invalid tokens of this source.
    pub fn count(&mut self, source: Source, checks: u32, now_ms: u64) {
        if self.per_second == 0 || checks == 0 {
            return;
        }
        if self.debts.len() >= SOURCES_MAX && !self.debts.contains_key(&source) {
            self.sweep(now_ms);
            if self.debts.len() >= SOURCES_MAX {
                return;
            }
        }
        let held = self.debts.get(&source).copied().unwrap_or_default();
        let milli = self.left(held, now_ms) + u64::from(checks) * 1_000;
        self.debts.insert(source, Debt { milli, at_ms: now_ms });
    }

    fn left(&self, debt: Debt, now_ms: u64) -> u64 {
        debt.milli.saturating_sub(now_ms.saturating_sub(debt.at_ms).saturating_mul(self.per_second))
    }

    fn sweep(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.swept_ms) < SWEEP_EVERY_MS {
            return;
        }
        self.swept_ms = now_ms;
        let per_second = self.per_second;
        self.debts.retain(|_, debt| debt.milli > now_ms.saturating_sub(debt.at_ms).saturating_mul(per_second));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PER_SECOND: u32 = 5;

    fn source(number: u32) -> Source {
        IpAddr::from(number.to_be_bytes()).into()
    }

    proptest! {
        /// Whatever other sources do: a source without failures may go on, and a failing one gets no more checks than
        /// its rate and one burst.
        #[test]
        fn only_a_failing_source_is_bounded(steps in prop::collection::vec((0_u32..6, 0_u64..400, 1_u32..4), 1..400)) {
            let (mut token_failures, mut now) = (TokenFailures::new(PER_SECOND), 1);
            let mut checked = [0_u64; 6];
            for (who, pause, checks) in steps {
                now += pause;
                prop_assert!(!token_failures.is_spent(source(99), now), "it never failed");
                if !token_failures.is_spent(source(who), now) {
                    checked[who as usize] += u64::from(checks);
                    token_failures.count(source(who), checks, now);
                }
                let most = u64::from(PER_SECOND) * (BURST_SECONDS * 1_000 + now) / 1_000 + 3;
                prop_assert!(checked.iter().all(|checked| *checked <= most), "{checked:?} of {most}");
            }
        }
    }

    #[test]
    fn a_flood_of_sources_is_bounded_and_hurts_none() {
        let mut token_failures = TokenFailures::new(PER_SECOND);
        for number in 0..3 * SOURCES_MAX {
            token_failures.count(source(u32::try_from(number).unwrap()), 100, 1);
        }
        assert_eq!(token_failures.debts.len(), SOURCES_MAX);
        assert!(token_failures.is_spent(source(1), 1) && !token_failures.is_spent(source(1 << 30), 1));
        assert!(!token_failures.is_spent(source(1), 60_000), "its debt is paid");
        token_failures.count(source(1 << 30), 100, 60_000);
        assert!(token_failures.is_spent(source(1 << 30), 60_000), "there is room again");
    }

    #[test]
    fn one_network_of_ipv6_is_one_source_and_zero_is_no_bound() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
        let mut token_failures = TokenFailures::new(0);
        token_failures.count(of("192.0.2.1"), 1_000, 1);
        assert!(!token_failures.is_spent(of("192.0.2.1"), 1));
    }
}
