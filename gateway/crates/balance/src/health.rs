//! One endpoint's health: a circuit breaker driven by its calls, pauses that it requested, the active health check, and
//! the slow start.
//!
//! Readers load one word, which is zero for a healthy endpoint. Changes are rare and go through a mutex.

use crate::failure_window::FailureWindow;
use crate::outcome::AttemptOutcome;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// With fewer attempts in the window a failure rate means nothing.
const VOLUME_MIN: u64 = 10;
const UNREACHABLE_IN_ROW_MAX: u32 = 3;
const FORBIDDEN_IN_ROW_MAX: u32 = 3;
const OPEN_MS: u64 = 5_000;
const OPEN_MS_MAX: u64 = 60_000;
/// An upstream cannot request a longer pause.
const PAUSE_MS_MAX: u64 = 120_000;
const CREDENTIAL_PAUSE_MS: u64 = 15_000;
const PROBES_MAX: u32 = 3;
const PROBES_GOOD: u32 = 2;
pub(crate) const RAMP_MS: u64 = 30_000;
/// Consecutive checks that change the result of the active health check.
const CHECKS_BAD: u32 = 3;
const CHECKS_GOOD: u32 = 2;

/// A whole weight. During the slow start an endpoint gets a part of it.
pub(crate) const WHOLE: u64 = 1_024;
const PROBING: u64 = WHOLE / 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// With the part of its weight, of 1024, that counts.
    Usable(u64),
    /// Until then (milliseconds), as far as that is known.
    Out(u64),
}

/// As metrics report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    Closed,
    HalfOpen,
    Open,
    /// It requested a pause, or refused our credential.
    Paused,
    /// The active health check failed.
    Down,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Breaker {
    #[default]
    Closed,
    Open {
        until: u64,
    },
    HalfOpen {
        running: u32,
        good: u32,
    },
}

#[derive(Debug, Default)]
struct Condition {
    breaker: Breaker,
    /// Openings without a complete slow start in between: each doubles the next.
    openings: u32,
    paused_until: u64,
    ramp_until: u64,
    down: bool,
    checks_bad: u32,
    checks_good: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Health {
    /// 0 = healthy; otherwise a code in the lower two bits, and a time in milliseconds above.
    word: AtomicU64,
    /// Unreachable in a row in the lower half, forbidden in a row in the upper.
    rows: AtomicU32,
    window: FailureWindow,
    condition: Mutex<Condition>,
}

const OUT: u64 = 1;
const HALF: u64 = 2;
const RAMP: u64 = 3;
const NEVER: u64 = u64::MAX >> 2;

impl Condition {
    fn word(&self, now: u64) -> u64 {
        let open_until = if let Breaker::Open { until } = self.breaker { until } else { 0 };
        let out_until = if self.down { NEVER } else { open_until.max(self.paused_until) };
        match self.breaker {
            _ if out_until > now => out_until << 2 | OUT,
            Breaker::HalfOpen { running, .. } if running >= PROBES_MAX => now << 2 | OUT,
            Breaker::HalfOpen { .. } | Breaker::Open { .. } => HALF,
            Breaker::Closed if self.ramp_until > now => self.ramp_until << 2 | RAMP,
            Breaker::Closed => 0,
        }
    }

    /// Applies what time alone changes.
    fn advance(&mut self, now: u64) {
        if let Breaker::Open { until } = self.breaker
            && until <= now
        {
            self.breaker = Breaker::HalfOpen { running: 0, good: 0 };
        }
        if self.breaker == Breaker::Closed && self.ramp_until <= now {
            self.openings = 0;
        }
    }

    fn open(&mut self, now: u64) {
        let base = (OPEN_MS << self.openings.min(8)).min(OPEN_MS_MAX);
        self.openings = self.openings.saturating_add(1);
        // Gateways that saw the same outage should not come back at the same moment.
        let jitter = now.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.breaker = Breaker::Open { until: now + base + jitter % (base / 4) };
    }

    fn close(&mut self, now: u64) {
        self.breaker = Breaker::Closed;
        self.ramp_until = now + RAMP_MS;
    }

    fn good(&mut self, now: u64) {
        self.breaker = match self.breaker {
            Breaker::Closed => return,
            Breaker::Open { .. } => Breaker::HalfOpen { running: 0, good: 1 },
            Breaker::HalfOpen { running, good } if good + 1 < PROBES_GOOD => Breaker::HalfOpen { running, good: good + 1 },
            Breaker::HalfOpen { .. } => return self.close(now),
        };
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, now: u64, change: impl FnOnce(&mut Condition) -> T) -> T {
        let mut condition = self.lock();
        condition.advance(now);
        let value = change(&mut condition);
        self.word.store(condition.word(now), Relaxed);
        value
    }

    pub fn availability(&self, now: u64) -> Availability {
        match self.word.load(Relaxed) {
            0 => Availability::Usable(WHOLE),
            word => self.slow_availability(word, now),
        }
    }

    #[cold]
    fn slow_availability(&self, word: u64, now: u64) -> Availability {
        let (code, time) = (word & 3, word >> 2);
        if (code == OUT || code == RAMP) && time <= now {
            self.change(now, |_| ());
        }
        let word = self.word.load(Relaxed);
        let (code, time) = (word & 3, word >> 2);
        match code {
            OUT => Availability::Out(time),
            HALF => Availability::Usable(PROBING),
            RAMP => {
                let passed = RAMP_MS.saturating_sub(time.saturating_sub(now));
                Availability::Usable((WHOLE * passed / RAMP_MS).clamp(PROBING, WHOLE))
            }
            _ => Availability::Usable(WHOLE),
        }
    }

    /// Starts a call and returns whether it is a trial. `None` = the endpoint is out, or has enough trial calls.
    pub fn start(&self, now: u64) -> Option<bool> {
        if matches!(self.word.load(Relaxed) & 3, 0 | RAMP) {
            return Some(false);
        }
        self.change(now, |condition| match &mut condition.breaker {
            Breaker::HalfOpen { running, .. } if *running < PROBES_MAX => {
                *running += 1;
                Some(true)
            }
            Breaker::Closed if !condition.down && condition.paused_until <= now => Some(false),
            _ => None,
        })
    }

    /// The trial call has its outcome, or never will.
    pub fn end_trial(&self, now: u64) {
        self.change(now, |condition| {
            if let Breaker::HalfOpen { running, .. } = &mut condition.breaker {
                *running = running.saturating_sub(1);
            }
        });
    }

    pub fn record_outcome(&self, outcome: AttemptOutcome, now: u64) {
        match outcome {
            AttemptOutcome::Answered => self.answered(now),
            AttemptOutcome::Nothing => {}
            AttemptOutcome::Unreachable => {
                let row = self.rows.fetch_add(1, Relaxed) & 0xFFFF;
                self.failed(now, row + 1 >= UNREACHABLE_IN_ROW_MAX);
            }
            AttemptOutcome::Failed => self.failed(now, false),
            AttemptOutcome::BrokeOff => {
                self.window.turn_into_failure(now);
                self.open_if_failing(now, false);
            }
            AttemptOutcome::Busy(ms) => self.pause(now, ms.min(PAUSE_MS_MAX)),
            AttemptOutcome::Unauthorised => self.pause(now, CREDENTIAL_PAUSE_MS),
            AttemptOutcome::Forbidden => {
                if (self.rows.fetch_add(1 << 16, Relaxed) >> 16) + 1 >= FORBIDDEN_IN_ROW_MAX {
                    self.pause(now, CREDENTIAL_PAUSE_MS);
                }
            }
        }
    }

    fn answered(&self, now: u64) {
        self.window.record(now, false);
        if self.rows.load(Relaxed) != 0 {
            self.rows.store(0, Relaxed);
        }
        if self.word.load(Relaxed) != 0 {
            let closed = self.change(now, |condition| {
                let before = condition.breaker;
                condition.good(now);
                before != Breaker::Closed && condition.breaker == Breaker::Closed
            });
            if closed {
                self.window.clear();
            }
        }
    }

    fn failed(&self, now: u64, row_is_full: bool) {
        self.window.record(now, true);
        self.open_if_failing(now, row_is_full);
    }

    /// Opens the breaker after a failure, if there were enough of them.
    fn open_if_failing(&self, now: u64, row_is_full: bool) {
        let counts = self.window.counts(now);
        let too_many = counts.attempts >= VOLUME_MIN && counts.failures * 2 >= counts.attempts;
        let opened = self.change(now, |condition| {
            let open = condition.breaker != Breaker::Closed || row_is_full || too_many;
            if open {
                condition.open(now);
            }
            open
        });
        if opened {
            self.rows.store(0, Relaxed);
        }
    }

    fn pause(&self, now: u64, ms: u64) {
        self.change(now, |condition| condition.paused_until = condition.paused_until.max(now + ms));
    }

    /// The result of an active health check. `None` = the endpoint is not checked any more.
    pub fn record_check(&self, healthy: Option<bool>, now: u64) {
        self.change(now, |condition| match healthy {
            None => (condition.down, condition.checks_bad, condition.checks_good) = (false, 0, 0),
            Some(true) => {
                (condition.checks_bad, condition.checks_good) = (0, condition.checks_good.saturating_add(1));
                if condition.down && condition.checks_good >= CHECKS_GOOD {
                    condition.down = false;
                    condition.ramp_until = now + RAMP_MS;
                }
            }
            Some(false) => {
                (condition.checks_good, condition.checks_bad) = (0, condition.checks_bad.saturating_add(1));
                condition.down |= condition.checks_bad >= CHECKS_BAD;
            }
        });
    }

    pub fn health_state(&self, now: u64) -> HealthState {
        self.change(now, |condition| match condition.breaker {
            _ if condition.down => HealthState::Down,
            Breaker::Open { .. } => HealthState::Open,
            _ if condition.paused_until > now => HealthState::Paused,
            Breaker::HalfOpen { .. } => HealthState::HalfOpen,
            Breaker::Closed => HealthState::Closed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_out(health: &Health, now: u64) -> bool {
        matches!(health.availability(now), Availability::Out(_))
    }

    #[test]
    fn three_failed_connects_open_it_and_trials_close_it_slowly() {
        let health = Health::default();
        health.record_outcome(AttemptOutcome::Unreachable, 10);
        health.record_outcome(AttemptOutcome::Answered, 20);
        (0..2).for_each(|i| health.record_outcome(AttemptOutcome::Unreachable, 30 + i));
        assert_eq!(health.availability(40), Availability::Usable(WHOLE), "a row was broken by an answer");
        health.record_outcome(AttemptOutcome::Unreachable, 50);
        assert!(is_out(&health, 60) && is_out(&health, 5_000));
        let later = 50 + OPEN_MS * 5 / 4;
        assert_eq!(health.availability(later), Availability::Usable(PROBING));
        assert_eq!(health.health_state(later), HealthState::HalfOpen);
        let trials: Vec<_> = (0..5).map(|_| health.start(later)).collect();
        assert_eq!(trials, [Some(true), Some(true), Some(true), None, None], "only a few try it");
        assert!(is_out(&health, later));
        health.record_outcome(AttemptOutcome::Answered, later);
        health.end_trial(later);
        assert_eq!(health.start(later), Some(true), "a trial that ended makes room");
        health.record_outcome(AttemptOutcome::Answered, later);
        assert_eq!(health.health_state(later), HealthState::Closed);
        assert_eq!(health.availability(later), Availability::Usable(PROBING), "slow start");
        assert_eq!(health.availability(later + RAMP_MS / 2), Availability::Usable(WHOLE / 2));
        assert_eq!(health.availability(later + RAMP_MS), Availability::Usable(WHOLE));
        assert_eq!(health.word.load(Relaxed), 0, "and the fast path is back");
    }

    #[test]
    fn a_failed_trial_opens_it_for_longer() {
        let health = Health::default();
        (0..3).for_each(|_| health.record_outcome(AttemptOutcome::Unreachable, 0));
        let first = OPEN_MS * 5 / 4;
        assert_eq!(health.start(OPEN_MS - 1), None);
        assert_eq!(health.start(first), Some(true));
        health.record_outcome(AttemptOutcome::Failed, first);
        assert!(is_out(&health, first + 2 * OPEN_MS - 1));
        assert!(!is_out(&health, first + 2 * OPEN_MS * 5 / 4));
    }

    #[test]
    fn a_rate_needs_volume() {
        let health = Health::default();
        (0..9).for_each(|_| health.record_outcome(AttemptOutcome::Failed, 0));
        assert!(!is_out(&health, 0));
        health.record_outcome(AttemptOutcome::Failed, 0);
        assert!(is_out(&health, 0));
        let healthy = Health::default();
        (0..1_000).for_each(|i| healthy.record_outcome(if i % 3 == 0 { AttemptOutcome::Failed } else { AttemptOutcome::Answered }, 0));
        assert!(!is_out(&healthy, 0), "a third is bad, but most calls succeed");
    }

    #[test]
    fn pauses_end_and_are_bounded() {
        let health = Health::default();
        health.record_outcome(AttemptOutcome::of_status(429, Some(2)), 0);
        assert_eq!(health.availability(1_999), Availability::Out(2_000));
        assert_eq!(health.health_state(1_999), HealthState::Paused);
        assert_eq!(health.availability(2_000), Availability::Usable(WHOLE), "a pause is not a failure, so there is no slow start");
        health.record_outcome(AttemptOutcome::of_status(503, Some(u64::MAX)), 2_000);
        assert_eq!(health.availability(2_000), Availability::Out(2_000 + PAUSE_MS_MAX));
        let refused = Health::default();
        (0..2).for_each(|_| refused.record_outcome(AttemptOutcome::Forbidden, 0));
        assert!(!is_out(&refused, 0));
        refused.record_outcome(AttemptOutcome::Forbidden, 0);
        assert!(is_out(&refused, 0) && !is_out(&refused, CREDENTIAL_PAUSE_MS));
    }

    #[test]
    fn the_active_check_takes_out_and_brings_back() {
        let health = Health::default();
        (0..2).for_each(|_| health.record_check(Some(false), 0));
        assert!(!is_out(&health, 0));
        health.record_check(Some(false), 0);
        assert!(is_out(&health, 1 << 40), "time does not heal it");
        health.record_check(Some(true), 10);
        assert!(is_out(&health, 10));
        health.record_check(Some(true), 20);
        assert!(!is_out(&health, 20));
        (0..3).for_each(|_| health.record_check(Some(false), 30));
        health.record_check(None, 40);
        assert!(!is_out(&health, 40), "without checks it is not down");
    }

    #[test]
    fn statuses_are_classified_by_whose_fault_they_are() {
        for status in [200, 201, 301, 400, 404, 408, 409, 413, 422, 499] {
            assert_eq!(AttemptOutcome::of_status(status, None), AttemptOutcome::Answered, "{status}");
        }
        for status in [500, 502, 503, 504, 529] {
            assert_eq!(AttemptOutcome::of_status(status, None), AttemptOutcome::Failed, "{status}");
        }
        assert_eq!(AttemptOutcome::of_status(429, None), AttemptOutcome::Nothing);
        assert_eq!(AttemptOutcome::of_status(401, None), AttemptOutcome::Unauthorised);
    }
}
