//! The time as of the last sweep. It is some milliseconds old and free to read; reading the system's clocks for every request is not.

use crate::reactor::shared::SharedState;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;
use tenon_policy::Moment;
use tenon_snapshot::unix_ms;

pub struct Clock {
    shared: Arc<SharedState>,
    now: Cell<Instant>,
    moment: Cell<Moment>,
    balance_ms: Cell<u64>,
}

impl Clock {
    pub fn new(shared: Arc<SharedState>) -> Self {
        let now = Instant::now();
        let (moment, balance_ms) = (moment(&shared), shared.endpoint_registry.ms(now));
        Self { shared, now: Cell::new(now), moment: Cell::new(moment), balance_ms: Cell::new(balance_ms) }
    }

    /// Reads the system's clocks.
    pub fn tick(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        self.balance_ms.set(self.shared.endpoint_registry.ms(now));
        self.moment.set(moment(&self.shared));
        now
    }

    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// What decides on expiry and staleness.
    pub fn moment(&self) -> Moment {
        self.moment.get()
    }

    /// By the clock of `balance`.
    pub fn balance_ms(&self) -> u64 {
        self.balance_ms.get()
    }

    /// By the clock of `limits`.
    pub fn limits_us(&self) -> u64 {
        self.shared.limit_registry.micros(self.now())
    }

    /// By the clock of `limits`, exactly.
    pub fn limits_us_exact(&self) -> u64 {
        self.shared.limit_registry.micros(Instant::now())
    }
}

fn moment(shared: &SharedState) -> Moment {
    Moment::now(&shared.freshness, unix_ms(), shared.limits.staleness_max)
}
