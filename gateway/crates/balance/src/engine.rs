//! The engine's own load figures, as last polled.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Older figures are not reported to anybody.
pub const STALE_AFTER_MS: u64 = 10_000;
/// An engine that stops reporting is more likely overloaded than idle: for this long its last figures count on,
/// multiplied by [`DOUBT`].
const DOUBTED_FOR_MS: u64 = 60_000;
const DOUBT: f64 = 2.0;

/// One reading. Not every engine reports all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineLoad {
    pub running: u32,
    pub waiting: u32,
    /// Share of the KV cache in use, in thousandths; `None` = not reported.
    pub kv_permille: Option<u16>,
}

/// 24 bits of running, 24 of waiting, 15 of cache use, the top bit = there is a reading.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    word: AtomicU64,
    at_ms: AtomicU64,
    /// Our own calls at that moment: later ones are not in the figures.
    outstanding: AtomicU64,
}

const FIELD: u64 = (1 << 24) - 1;
const UNKNOWN: u64 = (1 << 15) - 1;

impl Reading {
    pub fn set(&self, figures: EngineLoad, outstanding: u32, now_ms: u64) {
        let kv = figures.kv_permille.map_or(UNKNOWN, |kv| u64::from(kv.min(1_000)));
        let word = u64::from(figures.running).min(FIELD) | u64::from(figures.waiting).min(FIELD) << 24 | kv << 48 | 1 << 63;
        self.outstanding.store(u64::from(outstanding), Relaxed);
        self.word.store(word, Relaxed);
        self.at_ms.store(now_ms, Relaxed);
    }

    pub fn clear(&self) {
        self.word.store(0, Relaxed);
    }

    /// The figures, unless they are stale.
    pub fn fresh(&self, now_ms: u64) -> Option<EngineLoad> {
        self.last(now_ms).filter(|last| last.age_ms <= STALE_AFTER_MS).map(|last| last.figures)
    }

    #[allow(clippy::cast_possible_truncation)] // fields of a word
    fn last(&self, now_ms: u64) -> Option<Last> {
        let (word, age_ms) = (self.word.load(Relaxed), now_ms.saturating_sub(self.at_ms.load(Relaxed)));
        if word >> 63 == 0 || age_ms > DOUBTED_FOR_MS {
            return None;
        }
        let kv = word >> 48 & UNKNOWN;
        let kv_permille = (kv != UNKNOWN).then_some(kv as u16);
        let figures = EngineLoad { running: (word & FIELD) as u32, waiting: (word >> 24 & FIELD) as u32, kv_permille };
        Some(Last { figures, outstanding: self.outstanding.load(Relaxed) as u32, age_ms })
    }

    /// How busy the engine is; lower is better. Waiting calls count more than running ones, and an engine with a nearly
    /// full cache preempts calls.
    pub fn load(&self, outstanding: u32, now_ms: u64) -> f64 {
        let Some(Last { figures, outstanding: then, age_ms }) = self.last(now_ms) else {
            return (f64::from(outstanding) + 1.0) * pressure(0.5);
        };
        let since = outstanding.saturating_sub(then);
        let calls = f64::from(figures.running) + 4.0 * f64::from(figures.waiting) + f64::from(since) + 1.0;
        let doubt = if age_ms > STALE_AFTER_MS { DOUBT } else { 1.0 };
        calls * doubt * pressure(figures.kv_permille.map_or(0.5, |kv| f64::from(kv) / 1_000.0))
    }
}

/// What an engine reported last, and how many of our calls ran then.
struct Last {
    figures: EngineLoad,
    outstanding: u32,
    age_ms: u64,
}

fn pressure(used: f64) -> f64 {
    let nearly_full = if used > 0.95 { 2.0 } else { 1.0 };
    (1.0 + 3.0 * used * used) * nearly_full
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(running: u32, waiting: u32, kv_permille: Option<u16>, outstanding: u32) -> Reading {
        let reading = Reading::default();
        reading.set(EngineLoad { running, waiting, kv_permille }, outstanding, 1_000);
        reading
    }

    #[test]
    fn figures_are_read_back_until_they_are_stale() {
        assert_eq!(Reading::default().fresh(0), None);
        let reported = reading(12, 3, Some(421), 7);
        assert_eq!(reported.fresh(1_500), Some(EngineLoad { running: 12, waiting: 3, kv_permille: Some(421) }));
        assert_eq!(reported.fresh(1_001 + STALE_AFTER_MS), None);
        assert_eq!(reading(12, 3, None, 7).fresh(1_000), Some(EngineLoad { running: 12, waiting: 3, kv_permille: None }));
    }

    #[test]
    fn a_queue_weighs_more_than_running_calls_and_a_full_cache_more_than_an_empty_one() {
        let of = |running, waiting, kv| reading(running, waiting, Some(kv), 0).load(0, 1_000);
        assert!(of(10, 0, 500) < of(2, 5, 500));
        assert!(of(4, 0, 100) < of(4, 0, 900));
        assert!(of(4, 0, 940) * 2.0 < of(4, 0, 960) * 1.05);
        let reported = reading(4, 0, None, 4);
        assert!(reported.load(4, 1_000) < reported.load(9, 1_000), "what we sent since the poll counts");
    }

    #[test]
    fn an_engine_that_stops_reporting_is_not_taken_for_an_idle_one() {
        let (silent, reporting) = (reading(8, 0, None, 0), reading(8, 0, None, 0));
        let later = 1_001 + STALE_AFTER_MS;
        reporting.set(EngineLoad { running: 8, waiting: 0, kv_permille: None }, 0, later);
        assert!(reporting.load(0, later) < silent.load(0, later));
        let idle = reading(0, 0, None, 0);
        assert!(idle.load(0, later) < reporting.load(0, later), "one that was idle is still worth a try");
        assert!(silent.load(0, 1_001 + DOUBTED_FOR_MS) < reporting.load(0, later), "in the end only our own calls count");
    }
}
