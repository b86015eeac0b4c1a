//! The state of one endpoint at run time. It outlives the routing tables that name it.

use crate::capacity::Capacity;
use crate::engine::{EngineLoad, Reading};
use crate::health::{Availability, Health, HealthState};
use crate::latency::PeakEwma;
use crate::outcome::AttemptOutcome;
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
pub enum StartResult {
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
            hash: crate::hash::hash_text(id.as_bytes()),
            capacity,
            health: Health::default(),
            latency: PeakEwma::default(),
            reading: Reading::default(),
        }
    }

    #[must_use]
    pub fn availability(&self, now_ms: u64) -> Availability {
        self.health.availability(now_ms)
    }

    #[must_use]
    pub fn health_state(&self, now_ms: u64) -> HealthState {
        self.health.health_state(now_ms)
    }

    #[must_use]
    pub fn start(&self, running_max: u32, now_ms: u64) -> StartResult {
        if !self.capacity.enter(running_max) {
            return StartResult::Full;
        }
        let Some(trial) = self.trial(now_ms) else {
            self.capacity.leave();
            return StartResult::Out;
        };
        StartResult::Yes { trial }
    }

    /// For a call that has already entered the capacity: whether it is a trial. `None` = it should not go there.
    #[must_use]
    pub fn trial(&self, now_ms: u64) -> Option<bool> {
        self.health.start(now_ms)
    }

    pub fn end_trial(&self, now_ms: u64) {
        self.health.end_trial(now_ms);
    }

    pub fn record_outcome(&self, outcome: AttemptOutcome, now_ms: u64) {
        self.health.record_outcome(outcome, now_ms);
    }

    pub fn record_first_token(&self, us: u64, now_ms: u64) {
        self.latency.observe(us, now_ms);
    }

    /// Mean microseconds to the first token; peaks count at once.
    #[must_use]
    pub fn first_token_us(&self, now_ms: u64) -> Option<f32> {
        self.latency.mean_us(now_ms)
    }

    pub fn record_check(&self, healthy: Option<bool>, now_ms: u64) {
        self.health.record_check(healthy, now_ms);
    }

    pub fn set_engine_load(&self, load: EngineLoad, now_ms: u64) {
        self.reading.set(load, self.capacity.running(), now_ms);
    }

    /// Its figures are not polled any more.
    pub fn clear_engine_load(&self) {
        self.reading.clear();
    }

    #[must_use]
    pub fn engine_load(&self, now_ms: u64) -> Option<EngineLoad> {
        self.reading.fresh(now_ms)
    }

    pub(crate) fn load(&self, now_ms: u64) -> f64 {
        self.reading.load(self.capacity.running(), now_ms)
    }
}
