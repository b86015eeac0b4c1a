//! One look a moment over all calls and connections of a thread, instead of a timer for each.

use crate::connection::{Leave, Watch};
use crate::live::{Cut, Live};
use crate::metrics::bump;
use crate::worker::Worker;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tenon_policy::{Moment, recheck};
use tenon_snapshot::Snapshot;
use tokio::time::MissedTickBehavior;

/// Deadlines are this exact, and a revoked key's streams end this soon after the revision arrives.
const EVERY: Duration = Duration::from_millis(25);
/// Expiry and strictness move with time, not with revisions; idle connections need no haste.
const SLOWLY: Duration = Duration::from_secs(1);

pub async fn sweep_for_ever(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = worker.snapshots.load_full();
    let mut slow = worker.tick();
    loop {
        ticks.tick().await;
        let now = worker.tick();
        let snapshot = worker.snapshots.load_full();
        let is_slow_tick = now.duration_since(slow) >= SLOWLY;
        let keys = !Arc::ptr_eq(&snapshot, &seen) || is_slow_tick;
        let moment = worker.moment();
        worker.metrics().calls.store(worker.live.len() as u64, Relaxed);
        worker.live.each(|live| look_at_call(live, now, keys.then_some((&*snapshot, &moment))));
        if is_slow_tick {
            slow = now;
            worker.pools.prune();
            worker.connections.each(|watch| look_at_connection(watch, now, &worker));
        }
        seen = snapshot;
    }
}

fn look_at_call(live: &Live, now: Instant, keys: Option<(&Snapshot, &Moment)>) {
    if let Some(problem) = live.overdue(now) {
        live.end(Cut { problem, timeout: true });
    }
    let refused = keys.and_then(|(snapshot, moment)| recheck(snapshot, &live.key, moment).err());
    if let Some(refusal) = refused {
        live.end(Cut { problem: refusal.into(), timeout: false });
    }
}

fn look_at_connection(watch: &Watch, now: Instant, worker: &Worker) {
    let limits = &worker.limits;
    let idle = watch.idle_since().is_some_and(|since| now.saturating_duration_since(since) > limits.connection_idle);
    let stalled = watch.is_stalled(now, limits.caller_stall);
    if stalled {
        // With its connection goes its upstream's, which would wait for ever otherwise.
        bump(&worker.metrics().callers_stalled, 1);
    }
    if idle || stalled {
        watch.tell(Leave::Now);
    }
}
