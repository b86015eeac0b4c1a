//! What an engine says of itself, as last polled.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Older figures tell about another moment: they are ignored.
pub const STALE_AFTER_MS: u64 = 10_000;

/// One reading. Engines do not all tell all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    pub running: u32,
    pub waiting: u32,
    /// Share of the KV cache in use, in thousandths; `None` = it does not say.
    pub kv_permille: Option<u16>,
}

/// 24 bits of running, 24 of waiting, 15 of cache use, the top bit = there is a reading.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    word: AtomicU64,
    at_ms: AtomicU64,
    /// Our own calls at that moment: what came since is not in the figures.
    outstanding: AtomicU64,
}

const FIELD: u64 = (1 << 24) - 1;
const UNKNOWN: u64 = (1 << 15) - 1;

impl Reading {
    pub fn set(&self, figures: Figures, outstanding: u32, now_ms: u64) {
        let kv = figures.kv_permille.map_or(UNKNOWN, |kv| u64::from(kv.min(1_000)));
        let word = u64::from(figures.running).min(FIELD) | u64::from(figures.waiting).min(FIELD) << 24 | kv << 48 | 1 << 63;
        self.outstanding.store(u64::from(outstanding), Relaxed);
        self.word.store(word, Relaxed);
        self.at_ms.store(now_ms, Relaxed);
    }

    pub fn forget(&self) {
        self.word.store(0, Relaxed);
    }

    /// The figures and how many calls of ours ran then, unless they are stale.
    #[allow(clippy::cast_possible_truncation)] // fields of a word
    pub fn fresh(&self, now_ms: u64) -> Option<(Figures, u32)> {
        let word = self.word.load(Relaxed);
        if word >> 63 == 0 || now_ms.saturating_sub(self.at_ms.load(Relaxed)) > STALE_AFTER_MS {
            return None;
        }
        let kv = word >> 48 & UNKNOWN;
        let kv_permille = (kv != UNKNOWN).then_some(kv as u16);
        let figures = Figures { running: (word & FIELD) as u32, waiting: (word >> 24 & FIELD) as u32, kv_permille };
        Some((figures, self.outstanding.load(Relaxed) as u32))
    }
}

/// How busy the engine is; lower is better. Waiting calls weigh more than running ones; a cache that is nearly full makes engines preempt.
pub(crate) fn load(reading: Option<(Figures, u32)>, outstanding: u32) -> f64 {
    let Some((figures, then)) = reading else {
        return (f64::from(outstanding) + 1.0) * pressure(0.5);
    };
    let since = outstanding.saturating_sub(then);
    let calls = f64::from(figures.running) + 4.0 * f64::from(figures.waiting) + f64::from(since) + 1.0;
    calls * pressure(figures.kv_permille.map_or(0.5, |kv| f64::from(kv) / 1_000.0))
}

fn pressure(used: f64) -> f64 {
    let nearly_full = if used > 0.95 { 2.0 } else { 1.0 };
    (1.0 + 3.0 * used * used) * nearly_full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_back_until_they_are_stale() {
        let reading = Reading::default();
        assert_eq!(reading.fresh(0), None);
        let figures = Figures { running: 12, waiting: 3, kv_permille: Some(421) };
        reading.set(figures, 7, 1_000);
        assert_eq!(reading.fresh(1_500), Some((figures, 7)));
        assert_eq!(reading.fresh(1_001 + STALE_AFTER_MS), None);
        let silent = Figures { kv_permille: None, ..figures };
        reading.set(silent, 7, 1_000);
        assert_eq!(reading.fresh(1_000), Some((silent, 7)));
    }

    #[test]
    fn a_queue_weighs_more_than_running_calls_and_a_full_cache_more_than_an_empty_one() {
        let of = |running, waiting, kv| load(Some((Figures { running, waiting, kv_permille: Some(kv) }, 0)), 0);
        assert!(of(10, 0, 500) < of(2, 5, 500));
        assert!(of(4, 0, 100) < of(4, 0, 900));
        assert!(of(4, 0, 940) * 2.0 < of(4, 0, 960) * 1.05);
        let reading = Some((Figures { running: 4, waiting: 0, kv_permille: None }, 4));
        assert!(load(reading, 4) < load(reading, 9), "what we sent since the poll counts");
    }
}
