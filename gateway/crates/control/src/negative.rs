//! Key ids the control plane did not know a moment ago. Bounded: anybody can make up ids.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use tenon_snapshot::KeyId;

const ENTRIES_MAX: usize = 10_000;
const LIFETIME: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Negative {
    since: HashMap<KeyId, Instant>,
    order: VecDeque<KeyId>,
}

impl Negative {
    pub fn insert(&mut self, id: KeyId) {
        if self.since.insert(id, Instant::now()).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > ENTRIES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.since.remove(&oldest);
            }
        }
    }

    pub fn holds(&self, id: &KeyId) -> bool {
        self.since.get(id).is_some_and(|since| since.elapsed() < LIFETIME)
    }

    /// The stream told of this key, or everything may have changed (`None`).
    pub fn forget(&mut self, id: Option<&KeyId>) {
        match id {
            // Its place in `order` stays and is dropped in its turn.
            Some(id) => drop(self.since.remove(id)),
            None => *self = Self::default(),
        }
    }
}

/// A token bucket, so that made-up keys cannot drown the control plane in questions.
pub(crate) struct Allowance {
    tokens: f64,
    filled: Instant,
    per_second: f64,
    burst: f64,
}

impl Allowance {
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { tokens: burst, filled: Instant::now(), per_second, burst }
    }

    pub fn take(&mut self) -> bool {
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.filled = now;
        let allowed = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(allowed));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_bounded_and_forgets_what_was_created() {
        let mut negative = Negative::default();
        let id = |n: usize| KeyId::try_from(format!("{n:010}").as_bytes()).unwrap();
        (0..ENTRIES_MAX + 5).for_each(|n| negative.insert(id(n)));
        assert!(negative.since.len() <= ENTRIES_MAX && !negative.holds(&id(0)) && negative.holds(&id(9)));
        negative.forget(Some(&id(9)));
        assert!(!negative.holds(&id(9)));
    }

    #[test]
    fn the_allowance_ends() {
        let mut allowance = Allowance::new(0.0, 2.0);
        assert_eq!([allowance.take(), allowance.take(), allowance.take()], [true, true, false]);
    }
}
