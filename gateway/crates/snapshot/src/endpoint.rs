//! One endpoint as its routing table declares it, with its state at run time.

use crate::markings::MarkingSet;
use crate::probes::ProbeTargets;
use crate::target::{Target, UnusableTarget};
use std::sync::Arc;
use std::time::Duration;
use tenon_balance::EndpointState;

/// Zero = the gateway's default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeouts {
    pub connect: Duration,
    pub headers: Duration,
    pub first_token: Duration,
    pub idle: Duration,
    pub total: Duration,
}

#[derive(Debug)]
pub struct Endpoint {
    pub id: Box<str>,
    pub cleared: MarkingSet,
    pub timeouts: Timeouts,
    pub target: Result<Target, UnusableTarget>,
    /// Its health, load and latency at run time.
    pub state: Arc<EndpointState>,
    pub probes: ProbeTargets,
    /// Concurrent calls; 0 = any number.
    pub(crate) running_max: u32,
    /// The operations it serves, one bit for each `Operation` by its number.
    pub operations: u32,
    /// Those served in the caller's own dialect; the others are translated.
    pub native: u32,
    /// It reports running usage in streams when requested.
    pub continuous_usage: bool,
    /// It goes on and bills everything when its caller leaves, so only its own end reveals the usage.
    pub bills_aborted: bool,
}
