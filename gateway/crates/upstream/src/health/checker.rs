//! The thread that runs the checks. It follows the routing tables; while they need no check, it has no runtime and compares one pointer now
//! and then.

use crate::connector::Connector;
use crate::health::check::{Check, CheckKind};
use crate::health::engine_metrics;
use crate::health::probe::Prober;
use crate::resolver::Resolver;
use crate::trust_store::TrustStore;
use foldhash::fast::RandomState;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenon_balance::{EndpointRegistry, EndpointState};
use tenon_snapshot::{SharedSnapshot, Snapshot};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, LocalSet};

/// A new routing table is followed this soon.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Checks that run at a time.
const RUNNING_MAX: usize = 256;

/// Zero = never.
#[derive(Clone, Copy, Debug)]
pub struct CheckIntervals {
    pub health: Duration,
    pub metrics: Duration,
    /// For one check, the connection included.
    pub timeout: Duration,
}

type States = Vec<Arc<EndpointState>>;
type Plan = HashMap<Check, States>;

/// Starts the thread; it ends with the process.
///
/// # Errors
/// When the system gives no thread.
pub fn start(snapshots: SharedSnapshot, registry: Arc<EndpointRegistry>, trust: Arc<TrustStore>, intervals: CheckIntervals) -> io::Result<()> {
    let body = move || {
        loop {
            if plan(&snapshots.load_full(), &intervals).is_empty() {
                wait_for_change(&snapshots);
                continue;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
            match runtime {
                Ok(runtime) => LocalSet::new().block_on(&runtime, check_until_empty(&snapshots, &registry, &trust, intervals)),
                Err(error) => {
                    tracing::error!("endpoints are not checked: {error}");
                    std::thread::park_timeout(Duration::from_secs(5));
                }
            }
        }
    };
    std::thread::Builder::new().name("health-checker".into()).spawn(body).map(drop)
}

fn wait_for_change(snapshots: &SharedSnapshot) {
    let seen = snapshots.load_full();
    while seen.has_routing_of(&snapshots.load()) {
        std::thread::park_timeout(POLL_INTERVAL);
    }
}

/// Returns when nothing is left to be checked.
async fn check_until_empty(snapshots: &SharedSnapshot, registry: &Arc<EndpointRegistry>, trust: &Arc<TrustStore>, intervals: CheckIntervals) {
    let prober = Prober { resolver: Resolver::default(), connector: Connector::new(trust.clone()) };
    let permits = Semaphore::new(RUNNING_MAX);
    let checker = Rc::new(Checker { prober, registry: registry.clone(), intervals, permits, random: RandomState::default() });
    let mut running = HashMap::new();
    loop {
        let seen = snapshots.load_full();
        checker.follow(&mut running, plan(&seen, &intervals));
        if running.is_empty() {
            return;
        }
        while seen.has_routing_of(&snapshots.load()) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn plan(snapshot: &Snapshot, intervals: &CheckIntervals) -> Plan {
    let mut plan = Plan::new();
    for endpoint in snapshot.routings().flat_map(|routing| &routing.endpoints) {
        let health = endpoint.probes.health.as_ref().filter(|_| !intervals.health.is_zero());
        let metrics = endpoint.probes.metrics.as_ref().filter(|_| !intervals.metrics.is_zero());
        let health = health.and_then(|address| Check::new(CheckKind::Health, address));
        let metrics = metrics.and_then(|(engine, address)| Check::new(CheckKind::Engine(*engine), address));
        for check in health.into_iter().chain(metrics) {
            plan.entry(check).or_default().push(endpoint.state.clone());
        }
    }
    plan
}

struct Checker {
    prober: Prober,
    registry: Arc<EndpointRegistry>,
    intervals: CheckIntervals,
    permits: Semaphore,
    random: RandomState,
}

struct Task {
    states: Rc<RefCell<States>>,
    abort: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl Checker {
    fn now(&self) -> u64 {
        self.registry.ms(Instant::now())
    }

    /// Stops the checks that are not in the plan, and starts those that do not run yet.
    fn follow(self: &Rc<Self>, running: &mut HashMap<Check, Task>, plan: Plan) {
        let is_checked = |state: &Arc<EndpointState>, of_health: bool| {
            let mut same = plan.iter().filter(|(check, _)| check.is_of_health() == of_health);
            same.any(|(_, states)| states.iter().any(|other| Arc::ptr_eq(other, state)))
        };
        for (check, task) in running.iter() {
            if plan.get(check).is_some_and(|states| same(states, &task.states.borrow())) {
                continue;
            }
            let of_health = check.is_of_health();
            task.states.borrow().iter().filter(|state| !is_checked(state, of_health)).for_each(|state| match check.kind {
                CheckKind::Health => state.record_check(None, self.now()),
                CheckKind::Engine(_) => state.clear_engine_load(),
            });
        }
        running.retain(|check, _| plan.contains_key(check));
        for (check, states) in plan {
            if let Some(task) = running.get(&check) {
                task.states.replace(states);
                continue;
            }
            let states = Rc::new(RefCell::new(states));
            let task = tokio::task::spawn_local(check_loop(self.clone(), check.clone(), states.clone()));
            running.insert(check, Task { states, abort: task.abort_handle() });
        }
    }

    /// From 0 to 1.
    #[allow(clippy::cast_precision_loss)] // chance
    fn chance(&self) -> f64 {
        self.random.hash_one(Instant::now()) as f64 / u64::MAX as f64
    }
}

fn same(one: &[Arc<EndpointState>], other: &[Arc<EndpointState>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

async fn check_loop(checker: Rc<Checker>, check: Check, states: Rc<RefCell<States>>) {
    let interval = match check.kind {
        CheckKind::Health => checker.intervals.health,
        CheckKind::Engine(_) => checker.intervals.metrics,
    };
    let (mut kept, mut was_good) = (None, true);
    // Gateways that start together do not check together, and do not fall into step later.
    tokio::time::sleep(interval.min(POLL_INTERVAL).mul_f64(checker.chance())).await;
    loop {
        let probe = async {
            let _permit = checker.permits.acquire().await;
            tokio::time::timeout(checker.intervals.timeout, checker.prober.get(&check, &mut kept)).await
        };
        let answer = probe.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
        let page = answer.map_err(|error| error.to_string()).and_then(|(status, body)| {
            let good = status.is_success().then_some(body);
            good.ok_or_else(|| format!("it answered {}", status.as_u16()))
        });
        let failure = record(&checker, &check, &states.borrow(), page).err();
        if was_good != failure.is_none() {
            log_change(&check, &states.borrow(), failure.as_deref());
        }
        was_good = failure.is_none();
        tokio::time::sleep(interval.mul_f64(0.8 + 0.4 * checker.chance())).await;
    }
}

/// Sets what the check found in the endpoints' states.
fn record(checker: &Checker, check: &Check, states: &[Arc<EndpointState>], page: Result<Vec<u8>, String>) -> Result<(), String> {
    let now = checker.now();
    match check.kind {
        CheckKind::Health => {
            states.iter().for_each(|state| state.record_check(Some(page.is_ok()), now));
            page.map(drop)
        }
        CheckKind::Engine(engine) => {
            let page = page?;
            // An idle engine's page lacks what it has not counted yet: no figures are no failure.
            if let Some(figures) = engine_metrics::figures(engine, &String::from_utf8_lossy(&page)) {
                states.iter().for_each(|state| state.set_engine_load(figures, now));
            }
            Ok(())
        }
    }
}

fn log_change(check: &Check, states: &[Arc<EndpointState>], failure: Option<&str>) {
    let what = if check.is_of_health() { "health" } else { "metrics" };
    let endpoint_id = states.first().map_or("", |state| &*state.id);
    match failure {
        Some(failure) => tracing::warn!(endpoint_id, what, endpoints = states.len(), "an endpoint's {what} cannot be read: {failure}"),
        None => tracing::info!(endpoint_id, what, endpoints = states.len(), "an endpoint's {what} can be read again"),
    }
}
