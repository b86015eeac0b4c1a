//! Questions about keys that are not held: one at a time for each key, bounded, rate-limited.

use crate::channel::Client;
use crate::negative::{Allowance, Negative};
use crate::thread::World;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tenon_contract::ResolveKeyRequest;
use tenon_snapshot::KeyId;
use tokio::sync::{mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(2);
const REPORT_EVERY: Duration = Duration::from_secs(10);
const REPORTED_MAX: usize = 10_000;
const WAITING_MAX: usize = 1024;
const QUESTIONS_PER_SECOND: f64 = 100.0;
const QUESTIONS_BURST: f64 = 200.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The snapshot holds it now: look again.
    Held,
    Unknown,
    /// The control plane cannot be asked at the moment.
    Unavailable,
}

pub(crate) enum Question {
    Key {
        id: KeyId,
        answer: oneshot::Sender<Resolution>,
    },
    /// A token named a key of this issuer that is not known here. Nobody waits.
    Issuer(Box<str>),
}

/// The reactors' end.
#[derive(Clone)]
pub struct Asker(mpsc::Sender<Question>);

impl Asker {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    pub async fn resolve(&self, id: KeyId) -> Resolution {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(Question::Key { id, answer }) {
            Ok(()) => answered.await.unwrap_or(Resolution::Unavailable),
            Err(_) => Resolution::Unavailable,
        }
    }

    /// Told on to the control plane, at most once in ten seconds for an issuer; where too much is asked, not at all.
    pub fn report_missing_key(&self, issuer_id: Box<str>) {
        let _full = self.0.try_send(Question::Issuer(issuer_id));
    }
}

pub(crate) struct Desk {
    pub negative: RefCell<Negative>,
    waiting: RefCell<HashMap<KeyId, Vec<oneshot::Sender<Resolution>>>>,
    allowance: RefCell<Allowance>,
    /// When an issuer was last asked about.
    reported: RefCell<HashMap<Box<str>, Instant>>,
}

impl Default for Desk {
    fn default() -> Self {
        let allowance = RefCell::new(Allowance::new(QUESTIONS_PER_SECOND, QUESTIONS_BURST));
        Self { negative: RefCell::default(), waiting: RefCell::default(), allowance, reported: RefCell::default() }
    }
}

impl Desk {
    /// Forged tokens name unknown keys as they like: an issuer is asked about seldom, and of all only so many are remembered.
    fn may_report(&self, issuer_id: &str) -> bool {
        let mut reported = self.reported.borrow_mut();
        if reported.len() >= REPORTED_MAX {
            reported.clear();
        }
        if reported.get(issuer_id).is_some_and(|at| at.elapsed() < REPORT_EVERY) || !self.allowance.borrow_mut().take() {
            return false;
        }
        reported.insert(issuer_id.into(), Instant::now());
        true
    }
}

async fn report(mut client: Client, issuer_id: Box<str>) {
    let request = ResolveKeyRequest { key_id: String::new(), issuer_id: issuer_id.into() };
    if let Ok(Err(status)) = tokio::time::timeout(PATIENCE, client.resolve_key(request)).await {
        tracing::warn!(code = ?status.code(), "an unknown key of an issuer could not be reported: {}", status.message());
    }
}

pub(crate) async fn answer_questions(world: Rc<World>, client: Client, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        let desk = &world.desk;
        let (id, answer) = match question {
            Question::Key { id, answer } => (id, answer),
            Question::Issuer(issuer_id) => {
                if desk.may_report(&issuer_id) {
                    tokio::task::spawn_local(report(client.clone(), issuer_id));
                }
                continue;
            }
        };
        if let Some(known) = at_once(&world, &id) {
            tell(answer, known);
        } else if let Some(others) = desk.waiting.borrow_mut().get_mut(&id) {
            others.push(answer);
        } else if desk.allowance.borrow_mut().take() {
            desk.waiting.borrow_mut().insert(id, vec![answer]);
            let (world, client) = (world.clone(), client.clone());
            tokio::task::spawn_local(async move {
                let resolution = ask(&world, client, id).await;
                let waiting = world.desk.waiting.borrow_mut().remove(&id).unwrap_or_default();
                waiting.into_iter().for_each(|answer| tell(answer, resolution));
            });
        } else {
            tell(answer, Resolution::Unavailable);
        }
    }
}

/// The caller may have left meanwhile.
fn tell(answer: oneshot::Sender<Resolution>, resolution: Resolution) {
    let _gone = answer.send(resolution);
}

fn at_once(world: &World, id: &KeyId) -> Option<Resolution> {
    if world.store.borrow().current().key(id).is_some() {
        return Some(Resolution::Held);
    }
    world.desk.negative.borrow().holds(id).then_some(Resolution::Unknown)
}

async fn ask(world: &World, mut client: Client, id: KeyId) -> Resolution {
    let epoch = world.store.borrow().epoch();
    let request = ResolveKeyRequest { key_id: String::from_utf8_lossy(&id).into_owned(), issuer_id: String::new() };
    let answer = match tokio::time::timeout(PATIENCE, client.resolve_key(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => {
            tracing::warn!(code = ?status.code(), "a key could not be resolved: {}", status.message());
            return Resolution::Unavailable;
        }
        Err(_) => return Resolution::Unavailable,
    };
    let found = answer.found;
    let asked_for = answer.key.as_ref().is_none_or(|key| key.key_id.as_bytes() == id);
    if found && asked_for {
        world.apply_resolved(answer, epoch);
    }
    match (world.store.borrow().current().key(&id).is_some(), found) {
        (true, _) => Resolution::Held,
        (false, false) => {
            world.desk.negative.borrow_mut().insert(id);
            Resolution::Unknown
        }
        // Found, but the answer was older than what we know: ask again with the next request.
        (false, true) => Resolution::Unavailable,
    }
}
