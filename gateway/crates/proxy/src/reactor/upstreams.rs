//! A thread's connections to endpoints, and how long endpoints may take.

use crate::base::limits::Limits;
use crate::reactor::shared::SharedState;
use tenon_snapshot::Timeouts;
use tenon_upstream::pool::ConnectionPools;

pub struct Upstreams {
    pub pools: ConnectionPools,
    limits: Limits,
}

impl Upstreams {
    pub fn new(shared: &SharedState) -> Self {
        Self { pools: ConnectionPools::new(shared.trust.clone(), shared.limits.pool_idle_max), limits: shared.limits }
    }

    /// The endpoint's timeouts, with the gateway's where it has none.
    pub fn timeouts(&self, endpoint: &Timeouts) -> Timeouts {
        self.limits.timeouts(endpoint)
    }
}
