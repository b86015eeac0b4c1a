//! The outcome of an attempt, as far as it says something about the endpoint.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It answered, possibly with an error that is the caller's fault.
    Answered,
    /// No connection, or reset before anything was written.
    Unreachable,
    /// 5xx, no response before a deadline, or a response that cannot be read or broke off.
    Failed,
    /// It was recorded as answered, and then broke off or fell silent in the middle.
    BrokeOff,
    /// It requested a pause (429 or 503 with `Retry-After`), in milliseconds.
    Busy(u64),
    /// It refused our credential (401).
    Unauthorised,
    /// It refused our credential, or perhaps only this call (403).
    Forbidden,
    /// It says nothing: the caller left, or the limit was the caller's own.
    Nothing,
}

impl AttemptOutcome {
    /// From the status of a response and its `Retry-After` in seconds.
    #[must_use]
    pub fn of_status(status: u16, retry_after_seconds: Option<u64>) -> Self {
        match (status, retry_after_seconds) {
            (429 | 503 | 529, Some(seconds)) => Self::Busy(seconds.saturating_mul(1_000)),
            // A limit without a time says nothing about health.
            (429, None) => Self::Nothing,
            (401 | 407, _) => Self::Unauthorised,
            (403, _) => Self::Forbidden,
            (500.., _) => Self::Failed,
            _ => Self::Answered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Availability, Health};

    #[test]
    fn answers_that_break_off_count_as_failures_not_as_attempts() {
        let health = Health::default();
        for i in 1..=10 {
            assert!(!matches!(health.availability(0), Availability::Out(_)), "after {i}");
            health.record_outcome(AttemptOutcome::Answered, 0);
            if i % 2 == 0 {
                health.record_outcome(AttemptOutcome::BrokeOff, 0);
            }
        }
        assert!(matches!(health.availability(0), Availability::Out(_)), "half of ten");
    }
}
