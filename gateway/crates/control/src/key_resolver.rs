//! Requests for keys that this gateway does not hold: one at a time for each key, bounded, and rate-limited.

use crate::channel::Client;
use crate::snapshot_writer::SnapshotWriter;
use crate::token_bucket::TokenBucket;
use crate::unknown_keys::UnknownKeys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tenon_contract::ResolveKeyRequest;
use tenon_snapshot::KeyId;
use tokio::sync::{mpsc, oneshot};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const ISSUER_REPORT_INTERVAL: Duration = Duration::from_secs(10);
const REPORTED_ISSUERS_MAX: usize = 10_000;
const QUEUE_LEN_MAX: usize = 1024;
const REQUESTS_PER_SECOND: f64 = 100.0;
const REQUESTS_BURST: f64 = 200.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The snapshot holds the key now: look it up again.
    Held,
    Unknown,
    /// The control plane cannot be reached at the moment.
    Unavailable,
}

type Reply = oneshot::Sender<Resolution>;

pub(crate) enum ResolveRequest {
    Key {
        id: KeyId,
        reply: Reply,
    },
    /// A token named a key of this issuer that is not known here. Nobody waits for the result.
    Issuer(Box<str>),
}

/// The end that reactors hold.
#[derive(Clone)]
pub struct KeyResolver(mpsc::Sender<ResolveRequest>);

impl KeyResolver {
    pub(crate) fn new() -> (Self, mpsc::Receiver<ResolveRequest>) {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN_MAX);
        (Self(sender), receiver)
    }

    pub async fn resolve(&self, id: KeyId) -> Resolution {
        let (reply, resolution) = oneshot::channel();
        match self.0.try_send(ResolveRequest::Key { id, reply }) {
            Ok(()) => resolution.await.unwrap_or(Resolution::Unavailable),
            Err(_) => Resolution::Unavailable,
        }
    }

    /// Passed on to the control plane at most once in ten seconds for an issuer, and dropped when there are too many
    /// requests.
    pub fn report_missing_key(&self, issuer_id: Box<str>) {
        let _full = self.0.try_send(ResolveRequest::Issuer(issuer_id));
    }
}

/// What the resolver remembers between requests.
pub(crate) struct KeyResolverState {
    writer: Rc<SnapshotWriter>,
    /// Shared with the stream of updates, which removes what was created.
    unknown: Rc<RefCell<UnknownKeys>>,
    waiting: RefCell<HashMap<KeyId, Vec<Reply>>>,
    rate: RefCell<TokenBucket>,
    /// When each issuer was last reported.
    reported: RefCell<HashMap<Box<str>, Instant>>,
}

impl KeyResolverState {
    pub fn new(writer: Rc<SnapshotWriter>, unknown: Rc<RefCell<UnknownKeys>>) -> Self {
        let rate = RefCell::new(TokenBucket::new(REQUESTS_PER_SECOND, REQUESTS_BURST));
        Self { writer, unknown, waiting: RefCell::default(), rate, reported: RefCell::default() }
    }

    /// Forged tokens can name unknown keys at will, so an issuer is reported seldom and the number of remembered
    /// issuers is bounded.
    fn may_report(&self, issuer_id: &str) -> bool {
        let mut reported = self.reported.borrow_mut();
        if reported.len() >= REPORTED_ISSUERS_MAX {
            reported.clear();
        }
        if reported.get(issuer_id).is_some_and(|at| at.elapsed() < ISSUER_REPORT_INTERVAL) || !self.rate.borrow_mut().take() {
            return false;
        }
        reported.insert(issuer_id.into(), Instant::now());
        true
    }

    fn resolve_locally(&self, id: &KeyId) -> Option<Resolution> {
        if self.writer.current().key(id).is_some() {
            return Some(Resolution::Held);
        }
        self.unknown.borrow().contains(id).then_some(Resolution::Unknown)
    }

    async fn resolve_remotely(&self, mut client: Client, id: KeyId) -> Resolution {
        let epoch = self.writer.epoch();
        let request = ResolveKeyRequest { key_id: String::from_utf8_lossy(&id).into_owned(), issuer_id: String::new() };
        let response = match tokio::time::timeout(RESPONSE_TIMEOUT, client.resolve_key(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                tracing::warn!(code = ?status.code(), "a key could not be resolved: {}", status.message());
                return Resolution::Unavailable;
            }
            Err(_) => return Resolution::Unavailable,
        };
        let is_known = response.exists;
        let is_requested_key = response.key.as_ref().is_none_or(|key| key.key_id.as_bytes() == id);
        if is_known && is_requested_key {
            self.writer.apply_resolved(response, epoch);
        }
        match (self.writer.current().key(&id).is_some(), is_known) {
            (true, _) => Resolution::Held,
            (false, false) => {
                self.unknown.borrow_mut().insert(id);
                Resolution::Unknown
            }
            // The response was older than what this gateway knows: the next call resolves the key again.
            (false, true) => Resolution::Unavailable,
        }
    }

    fn send_to_waiting(&self, id: &KeyId, resolution: Resolution) {
        let waiting = self.waiting.borrow_mut().remove(id).unwrap_or_default();
        waiting.into_iter().for_each(|reply| send(reply, resolution));
    }
}

pub(crate) async fn run_key_resolver(state: Rc<KeyResolverState>, client: Client, mut requests: mpsc::Receiver<ResolveRequest>) {
    while let Some(request) = requests.recv().await {
        match request {
            ResolveRequest::Key { id, reply } => resolve(&state, &client, id, reply),
            ResolveRequest::Issuer(issuer_id) if state.may_report(&issuer_id) => {
                tokio::task::spawn_local(report_issuer(client.clone(), issuer_id));
            }
            ResolveRequest::Issuer(_) => {}
        }
    }
}

fn resolve(state: &Rc<KeyResolverState>, client: &Client, id: KeyId, reply: Reply) {
    if let Some(resolution) = state.resolve_locally(&id) {
        send(reply, resolution);
    } else if let Some(others) = state.waiting.borrow_mut().get_mut(&id) {
        others.push(reply);
    } else if state.rate.borrow_mut().take() {
        state.waiting.borrow_mut().insert(id, vec![reply]);
        let (state, client) = (state.clone(), client.clone());
        tokio::task::spawn_local(async move {
            let resolution = state.resolve_remotely(client, id).await;
            state.send_to_waiting(&id, resolution);
        });
    } else {
        send(reply, Resolution::Unavailable);
    }
}

/// The caller may have gone meanwhile.
fn send(reply: Reply, resolution: Resolution) {
    let _gone = reply.send(resolution);
}

async fn report_issuer(mut client: Client, issuer_id: Box<str>) {
    let request = ResolveKeyRequest { key_id: String::new(), issuer_id: issuer_id.into() };
    if let Ok(Err(status)) = tokio::time::timeout(RESPONSE_TIMEOUT, client.resolve_key(request)).await {
        tracing::warn!(code = ?status.code(), "an unknown key of an issuer could not be reported: {}", status.message());
    }
}
