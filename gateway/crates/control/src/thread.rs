//! The control thread: one runtime for updates, questions, shipping and saving.

use crate::ask::{Asker, Desk, Question, answer_questions};
use crate::channel::{Client, ControlError, Peer, Shipping, clients};
use crate::delay::Delays;
use crate::lease::lease_for_ever;
use crate::save::{save, save_for_ever};
use crate::ship::ship_for_ever;
use crate::subscribe::subscribe_for_ever;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tenon_contract::{ResolveKeyResponse, Update};
use tenon_limits::Registry;
use tenon_snapshot::{Applied, Freshness, Heard, LastKnownGood, Store};
use tenon_usage::Queue;
use tokio::sync::{mpsc, oneshot};

/// For `/readyz` and metrics.
#[derive(Debug, Default)]
pub struct Status {
    pub connected: AtomicBool,
    pub shipping: AtomicBool,
    pub delays: Delays,
    /// What was told, and what of it was not taken in.
    pub heard: Arc<Heard>,
    trouble: Mutex<String>,
}

impl Status {
    /// Why there is no connection; empty while there is one, and before the first attempt.
    pub fn trouble(&self) -> String {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the reason is another than before.
    pub(crate) fn lost(&self, reason: &str) -> bool {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *trouble != reason;
        reason.clone_into(&mut trouble);
        is_news
    }

    pub(crate) fn found(&self) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What the thread takes over.
pub struct Parts {
    pub store: Store,
    pub freshness: Arc<Freshness>,
    pub disk: LastKnownGood,
    pub queue: Queue,
    /// Limits and budgets: their shares and leases are fetched here.
    pub registry: Arc<Registry>,
}

/// All that lives on the control thread.
pub(crate) struct World {
    pub store: RefCell<Store>,
    pub queue: RefCell<Queue>,
    pub freshness: Arc<Freshness>,
    pub desk: Desk,
    pub status: Arc<Status>,
    /// Something changed that is not on disk.
    pub dirty: Cell<bool>,
}

impl World {
    pub fn apply(&self, update: Update) {
        if self.store.borrow_mut().apply(update) == Applied::Changed {
            self.dirty.set(true);
        }
    }

    pub fn apply_resolved(&self, answer: ResolveKeyResponse, epoch: u64) {
        if self.store.borrow_mut().apply_resolved(answer, epoch) == Applied::Changed {
            self.dirty.set(true);
        }
    }
}

pub struct Control {
    pub asker: Asker,
    pub status: Arc<Status>,
    stop: oneshot::Sender<Duration>,
    thread: JoinHandle<()>,
}

impl Control {
    /// # Errors
    /// When the address or the identity cannot be used, or no thread can be made. An absent control plane is no error.
    pub fn start(peer: Peer, parts: Parts) -> Result<Self, ControlError> {
        let (asker, questions) = Asker::new();
        let status = Arc::new(Status { heard: parts.store.heard(), ..Status::default() });
        let (stop, stopped) = oneshot::channel();
        let (route, identity) = (peer.route()?, peer.identity()?);
        let told = status.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Thread)?;
        let body = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let clients = clients(route, identity);
                run(clients, peer.gateway_id, parts, told, questions, stopped).await;
            });
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(body).map_err(ControlError::Thread)?;
        Ok(Self { asker, status, stop, thread })
    }

    /// Ships what has ended, for at most `patience`, then ends the thread. What is left lies in the log for the next start.
    pub fn stop(self, patience: Duration) {
        if self.stop.send(patience).is_ok() && self.thread.join().is_err() {
            tracing::error!("the control thread ended badly");
        }
    }
}

async fn run(
    (client, shipping): (Client, Shipping),
    gateway_id: String,
    parts: Parts,
    status: Arc<Status>,
    questions: mpsc::Receiver<Question>,
    stopped: oneshot::Receiver<Duration>,
) {
    let (leave, leaving) = oneshot::channel();
    let (store, queue) = (RefCell::new(parts.store), RefCell::new(parts.queue));
    let world = Rc::new(World { store, queue, freshness: parts.freshness, desk: Desk::default(), status, dirty: Cell::new(false) });
    tokio::task::spawn_local(subscribe_for_ever(world.clone(), client.clone(), gateway_id));
    tokio::task::spawn_local(answer_questions(world.clone(), client.clone(), questions));
    let leases = tokio::task::spawn_local(lease_for_ever(world.clone(), client, parts.registry, leaving));
    tokio::task::spawn_local(ship_for_ever(world.clone(), shipping));
    tokio::task::spawn_local(save_for_ever(world.clone(), parts.disk.clone()));
    let patience = stopped.await.unwrap_or_default();
    let deadline = Instant::now() + patience;
    while !world.queue.borrow_mut().is_shipped() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The reactors have ended, so everything is settled: what leases still hold goes back.
    if leave.send(()).is_ok() && leases.await.is_err() {
        tracing::error!("the talk about leases ended badly");
    }
    save(&world, &parts.disk).await;
}
