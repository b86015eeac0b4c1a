//! The state of one endpoint at run time. It outlives the routing tables that name it.

use crate::capacity::Capacity;
use crate::engine::{Figures, Reading};
use crate::health::{Health, Standing, State};
use crate::latency::PeakEwma;
use crate::outcome::Verdict;
use std::sync::Arc;

#[derive(Debug)]
#[repr(align(128))]
pub struct EndpointState {
    pub id: Box<str>,
    /// Hash of the id for consistent hashing, the same in every gateway and after every restart.
    pub(crate) hash: u64,
    pub capacity: Arc<Capacity>,
    health: Health,
    latency: PeakEwma,
    reading: Reading,
}

/// The result of starting a call at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The call may go there. A trial call needs its outcome.
    Yes {
        trial: bool,
    },
    Full,
    /// It became unhealthy just now, or has enough trial calls.
    Out,
}

impl EndpointState {
    #[must_use]
    pub fn new(id: &str, capacity: Arc<Capacity>) -> Self {
        Self {
            id: id.into(),
            hash: crate::hash::of_text(id.as_bytes()),
            capacity,
            health: Health::default(),
            latency: PeakEwma::default(),
            reading: Reading::default(),
        }
    }

    #[must_use]
    pub fn standing(&self, now_ms: u64) -> Standing {
        self.health.standing(now_ms)
    }

    #[must_use]
    pub fn state(&self, now_ms: u64) -> State {
        self.health.state(now_ms)
    }

    #[must_use]
    pub fn begin(&self, running_max: u32, now_ms: u64) -> Begun {
        if !self.capacity.enter(running_max) {
            return Begun::Full;
        }
        let Some(trial) = self.trial(now_ms) else {
            self.capacity.leave();
            return Begun::Out;
        };
        Begun::Yes { trial }
    }

    /// For a call that has already entered the capacity: whether it is a trial. `None` = it should not go there.
    #[must_use]
    pub fn trial(&self, now_ms: u64) -> Option<bool> {
        self.health.begin(now_ms)
    }

    pub fn end_trial(&self, now_ms: u64) {
        self.health.end_trial(now_ms);
    }

    pub fn judge(&self, verdict: Verdict, now_ms: u64) {
        self.health.judge(verdict, now_ms);
    }

    pub fn first_token(&self, us: u64, now_ms: u64) {
        self.latency.observe(us, now_ms);
    }

    /// Mean microseconds to the first token; peaks count at once.
    #[must_use]
    pub fn first_token_us(&self, now_ms: u64) -> Option<f32> {
        self.latency.mean_us(now_ms)
    }

    pub fn checked(&self, healthy: Option<bool>, now_ms: u64) {
        self.health.checked(healthy, now_ms);
    }

    pub fn told(&self, figures: Figures, now_ms: u64) {
        self.reading.set(figures, self.capacity.running(), now_ms);
    }

    /// Its figures are not polled any more.
    pub fn forget_figures(&self) {
        self.reading.clear();
    }

    #[must_use]
    pub fn figures(&self, now_ms: u64) -> Option<Figures> {
        self.reading.fresh(now_ms)
    }

    pub(crate) fn load(&self, now_ms: u64) -> f64 {
        self.reading.load(self.capacity.running(), now_ms)
    }
}
