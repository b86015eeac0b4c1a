//! Asks endpoints beside their calls, on a thread of its own: are they well, and how busy are their engines.
//!
//! Follows the routing tables. What several endpoints have in common is asked once. Where nothing is to be asked, the thread has no runtime
//! and compares one pointer now and then.

mod engines;
mod probe;

use crate::sender::Tls;
use crate::tls::Trust;
use foldhash::fast::RandomState;
use probe::Prober;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tenon_balance::{EndpointState, Registry};
use tenon_contract::Engine;
use tenon_snapshot::{Address, Origin, Shared as Snapshots, Snapshot};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, LocalSet};

/// A new table is followed this soon.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const RUNNING_MAX: usize = 256;

/// Zero = never.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub health_every: Duration,
    pub metrics_every: Duration,
    /// For one look, the connection included.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Health,
    Engine(Engine),
}

/// What is asked, of whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    what: What,
    origin: Origin,
    host: Box<str>,
    path: Box<str>,
}

impl Subject {
    fn new(what: What, address: &Address) -> Option<Self> {
        let host = address.host_header.to_str().ok()?.into();
        Some(Self { what, origin: address.origin.clone(), host, path: address.path.as_str().into() })
    }
}

type States = Vec<Arc<EndpointState>>;
type Plan = HashMap<Subject, States>;

/// Starts the thread; it ends with the process.
///
/// # Errors
/// When the system gives no thread.
pub fn watch(snapshots: Snapshots, registry: Arc<Registry>, trust: Arc<Trust>, pace: Pace) -> io::Result<()> {
    let body = move || {
        loop {
            if plan(&snapshots.load_full(), &pace).is_empty() {
                wait_for_change(&snapshots);
                continue;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
            match runtime {
                Ok(runtime) => LocalSet::new().block_on(&runtime, follow(&snapshots, &registry, &trust, pace)),
                Err(error) => {
                    tracing::error!("endpoints are not watched: {error}");
                    std::thread::park_timeout(Duration::from_secs(5));
                }
            }
        }
    };
    std::thread::Builder::new().name("watcher".into()).spawn(body).map(drop)
}

fn wait_for_change(snapshots: &Snapshots) {
    let seen = snapshots.load_full();
    while seen.has_routing_of(&snapshots.load()) {
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Until nothing is left to be watched.
async fn follow(snapshots: &Snapshots, registry: &Arc<Registry>, trust: &Arc<Trust>, pace: Pace) {
    let prober = Prober { resolver: crate::addresses::Resolver::default(), tls: Tls::new(trust.clone()) };
    let world = Rc::new(World { prober, registry: registry.clone(), pace, places: Semaphore::new(RUNNING_MAX), random: RandomState::default() });
    let mut watched = HashMap::new();
    loop {
        let seen = snapshots.load_full();
        world.follow(&mut watched, plan(&seen, &pace));
        if watched.is_empty() {
            return;
        }
        while seen.has_routing_of(&snapshots.load()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn plan(snapshot: &Snapshot, pace: &Pace) -> Plan {
    let mut plan = Plan::new();
    for endpoint in snapshot.routings().flat_map(|routing| &routing.endpoints) {
        let health = endpoint.watched.health.as_ref().filter(|_| !pace.health_every.is_zero());
        let metrics = endpoint.watched.metrics.as_ref().filter(|_| !pace.metrics_every.is_zero());
        let health = health.and_then(|address| Subject::new(What::Health, address));
        let metrics = metrics.and_then(|(engine, address)| Subject::new(What::Engine(*engine), address));
        for subject in health.into_iter().chain(metrics) {
            plan.entry(subject).or_default().push(endpoint.state.clone());
        }
    }
    plan
}

struct World {
    prober: Prober,
    registry: Arc<Registry>,
    pace: Pace,
    /// Looks at a time.
    places: Semaphore,
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

impl World {
    fn now(&self) -> u64 {
        self.registry.ms(Instant::now())
    }

    fn follow(self: &Rc<Self>, watched: &mut HashMap<Subject, Task>, plan: Plan) {
        let is_asked = |state: &Arc<EndpointState>, of_health: bool| {
            let mut same = plan.iter().filter(|(subject, _)| (subject.what == What::Health) == of_health);
            same.any(|(_, states)| states.iter().any(|other| Arc::ptr_eq(other, state)))
        };
        for (subject, task) in watched.iter() {
            if plan.get(subject).is_some_and(|states| same(states, &task.states.borrow())) {
                continue;
            }
            let of_health = subject.what == What::Health;
            task.states.borrow().iter().filter(|state| !is_asked(state, of_health)).for_each(|state| match subject.what {
                What::Health => state.checked(None, self.now()),
                What::Engine(_) => state.forget_figures(),
            });
        }
        watched.retain(|subject, _| plan.contains_key(subject));
        for (subject, states) in plan {
            if let Some(task) = watched.get(&subject) {
                task.states.replace(states);
                continue;
            }
            let states = Rc::new(RefCell::new(states));
            let task = tokio::task::spawn_local(ask_for_ever(self.clone(), subject.clone(), states.clone()));
            watched.insert(subject, Task { states, abort: task.abort_handle() });
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

async fn ask_for_ever(world: Rc<World>, subject: Subject, states: Rc<RefCell<States>>) {
    let every = match subject.what {
        What::Health => world.pace.health_every,
        What::Engine(_) => world.pace.metrics_every,
    };
    let (mut kept, mut was_good) = (None, true);
    // Gateways that start together do not ask together, and do not fall into step later.
    tokio::time::sleep(every.min(LOOK_EVERY).mul_f64(world.chance())).await;
    loop {
        let asked = async {
            let _place = world.places.acquire().await;
            tokio::time::timeout(world.pace.timeout, world.prober.ask(&subject, &mut kept)).await
        };
        let answer = asked.await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
        let found = answer.map_err(|error| error.to_string()).and_then(|(status, body)| {
            let good = status.is_success().then_some(body);
            good.ok_or_else(|| format!("it answered {}", status.as_u16()))
        });
        let trouble = tell(&world, &subject, &states.borrow(), found).err();
        if was_good != trouble.is_none() {
            log(&subject, &states.borrow(), trouble.as_deref());
        }
        was_good = trouble.is_none();
        tokio::time::sleep(every.mul_f64(0.8 + 0.4 * world.chance())).await;
    }
}

fn tell(world: &World, subject: &Subject, states: &[Arc<EndpointState>], found: Result<Vec<u8>, String>) -> Result<(), String> {
    let now = world.now();
    match subject.what {
        What::Health => {
            states.iter().for_each(|state| state.checked(Some(found.is_ok()), now));
            found.map(drop)
        }
        What::Engine(engine) => {
            let page = found?;
            // What an idle engine has not counted yet is not on its page: no figures are no trouble.
            if let Some(figures) = engines::figures(engine, &String::from_utf8_lossy(&page)) {
                states.iter().for_each(|state| state.told(figures, now));
            }
            Ok(())
        }
    }
}

/// When it changes, not every time.
fn log(subject: &Subject, states: &[Arc<EndpointState>], trouble: Option<&str>) {
    let what = if subject.what == What::Health { "health" } else { "metrics" };
    let endpoint_id = states.first().map_or("", |state| &*state.id);
    match trouble {
        Some(trouble) => tracing::warn!(endpoint_id, what, endpoints = states.len(), "an endpoint's {what} cannot be had: {trouble}"),
        None => tracing::info!(endpoint_id, what, endpoints = states.len(), "an endpoint's {what} can be had again"),
    }
}
