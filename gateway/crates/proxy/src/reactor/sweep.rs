//! Checks all calls and connections of a thread many times a second, instead of a timer for each.

use crate::observe::metrics::bump;
use crate::reactor::caller_connection::{CallerConnection, Close};
use crate::reactor::in_flight::{Abort, InFlightCall};
use crate::reactor::worker::Worker;
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

pub async fn sweep_loop(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = worker.snapshots.load_full();
    let mut slow = worker.tick();
    loop {
        ticks.tick().await;
        let now = worker.tick();
        let snapshot = worker.snapshots.load_full();
        let is_slow_tick = now.duration_since(slow) >= SLOW_INTERVAL;
        let keys = !Arc::ptr_eq(&snapshot, &seen) || is_slow_tick;
        let moment = worker.moment();
        worker.metrics().calls.store(worker.calls.len() as u64, Relaxed);
        worker.calls.each(|call| check_call(call, now, keys.then_some((&*snapshot, &moment))));
        if is_slow_tick {
            slow = now;
            worker.pools.prune();
            worker.connections.each(|connection| check_connection(connection, now, &worker));
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

fn check_connection(connection: &CallerConnection, now: Instant, worker: &Worker) {
    let limits = &worker.limits;
    let idle = connection.idle_since().is_some_and(|since| now.saturating_duration_since(since) > limits.connection_idle);
    let stalled = connection.is_stalled(now, limits.caller_stall);
    if stalled {
        // Its connection to the endpoint closes with it, and would wait indefinitely otherwise.
        bump(&worker.metrics().callers_stalled, 1);
    }
    if idle || stalled {
        connection.close(Close::Now);
    }
}
