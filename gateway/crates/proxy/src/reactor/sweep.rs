//! Checks all calls and connections of a thread many times a second, instead of a timer for each.

use crate::observe::metrics::bump;
use crate::reactor::caller_connection::{CallerConnection, Close};
use crate::reactor::in_flight::{Abort, InFlightCall};
use crate::reactor::state::Reactor;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tenon_policy::{Moment, recheck};
use tenon_snapshot::Snapshot;
use tokio::time::MissedTickBehavior;

/// Deadlines are this exact, and a revoked key's streams end this soon after the revision arrives.
const SWEEP_INTERVAL: Duration = Duration::from_millis(25);
/// For keys whose state changes with time alone, not with a revision, and for idle connections.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);

pub async fn sweep_loop(reactor: Rc<Reactor>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = reactor.shared.snapshots.load_full();
    let mut slow = reactor.clock.tick();
    loop {
        ticks.tick().await;
        let now = reactor.clock.tick();
        let snapshot = reactor.shared.snapshots.load_full();
        let is_slow_tick = now.duration_since(slow) >= SLOW_INTERVAL;
        let keys = !Arc::ptr_eq(&snapshot, &seen) || is_slow_tick;
        let moment = reactor.clock.moment();
        reactor.observers.metrics().calls.store(reactor.calls.len() as u64, Relaxed);
        reactor.calls.each(|call| check_call(call, now, keys.then_some((&*snapshot, &moment))));
        if is_slow_tick {
            slow = now;
            reactor.upstreams.pools.prune();
            reactor.connections.each(|connection| check_connection(connection, now, &reactor));
        }
        seen = snapshot;
    }
}

fn check_call(call: &InFlightCall, now: Instant, keys: Option<(&Snapshot, &Moment)>) {
    if let Some(problem) = call.expired(now) {
        call.abort(Abort { problem, timeout: true });
    }
    let refused = keys.and_then(|(snapshot, moment)| recheck(snapshot, &call.key, moment).err());
    if let Some(refusal) = refused {
        call.abort(Abort { problem: refusal.into(), timeout: false });
    }
}

fn check_connection(connection: &CallerConnection, now: Instant, reactor: &Reactor) {
    let limits = &reactor.shared.limits;
    let idle = connection.idle_since().is_some_and(|since| now.saturating_duration_since(since) > limits.connection_idle);
    let stalled = connection.is_stalled(now, limits.caller_stall);
    if stalled {
        // Its connection to the endpoint closes with it, and would wait indefinitely otherwise.
        bump(&reactor.observers.metrics().callers_stalled, 1);
    }
    if idle || stalled {
        connection.close(Close::Now);
    }
}
