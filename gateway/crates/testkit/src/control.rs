//! A control plane in memory: the second implementation of the contract.

use crate::leases::{LeaseRecord, Leases};
use crate::record_ids::{RecordIdsOnly, Stored};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tenon_contract::gateway_control_server::{GatewayControl, GatewayControlServer};
use tenon_contract::update::Change;
use tenon_contract::{
    Governance, Heartbeat, Issuer, KeyRecord, LeaseRequest, LeaseResponse, ResolveKeyRequest, ResolveKeyResponse, RoutingTable, Snapshot,
    SubscribeRequest, Update, UsageAck, UsageBatch, UsageRecord,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

pub const TOKEN: &str = "enrolment-token-for-tests";

#[derive(Default)]
struct State {
    revision: u64,
    keys: HashMap<String, KeyRecord>,
    /// Known to `ResolveKey` only.
    hidden: HashMap<String, ResolveKeyResponse>,
    routing: HashMap<String, RoutingTable>,
    governance: HashMap<String, Governance>,
    issuers: HashMap<String, Issuer>,
    subscribers: Vec<mpsc::UnboundedSender<Result<Update, Status>>>,
    usage: HashMap<Vec<u8>, UsageRecord>,
    duplicates: u64,
    acknowledge: bool,
    resolves_held: bool,
    resolves: u64,
    leasing: Leases,
    lease_answers_held: bool,
}

type Running = (oneshot::Sender<()>, std::thread::JoinHandle<()>);

#[derive(Clone)]
pub struct Control {
    state: Arc<Mutex<State>>,
    pub address: SocketAddr,
    stop: Arc<Mutex<Option<Running>>>,
    /// For load tests: only the ids of usage records are kept.
    record_ids: Option<Stored>,
}

impl Control {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub fn start_at(address: SocketAddr) -> Self {
        Self::begin(address, None)
    }

    /// For load tests, where whole records would cost more than the gateway. Only [`Self::usage_count`] reports usage then.
    pub fn start_counting_ids_at(address: SocketAddr) -> Self {
        Self::begin(address, Some(Stored::default()))
    }

    fn begin(address: SocketAddr, record_ids: Option<Stored>) -> Self {
        let state = State { revision: 1, acknowledge: true, ..State::default() };
        let mut control = Self { state: Arc::new(Mutex::new(state)), address, stop: Arc::default(), record_ids };
        control.resume();
        control
    }

    /// Listens again, at the same address once it has one.
    pub fn resume(&mut self) {
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = RecordIdsOnly::new(GatewayControlServer::new(Service(self.state.clone())), self.record_ids.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
                let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
                // Dropped, not drained, like a control plane that was killed.
                tokio::select! { _ = server => {}, _ = stopped => {} }
            });
        });
        *self.stop.lock().unwrap() = Some((stop, thread));
    }

    pub fn stop(&self) {
        if let Some((stop, thread)) = self.stop.lock().unwrap().take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
        self.state.lock().unwrap().subscribers.clear();
    }

    /// Sends a change as the next revision and returns the revision.
    fn change(&self, change: impl FnOnce(&mut State, u64) -> Change) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        let change = change(&mut state, revision);
        let update = Update { revision, change: Some(change), ..Default::default() };
        state.subscribers.retain(|to| to.send(Ok(update.clone())).is_ok());
        revision
    }

    pub fn put_key(&self, mut record: KeyRecord) -> u64 {
        self.change(|state, revision| {
            record.revision = revision;
            state.keys.insert(record.key_id.clone(), record.clone());
            Change::Key(record)
        })
    }

    pub fn revoke(&self, key_id: &str) -> u64 {
        let mut record = self.state.lock().unwrap().keys[key_id].clone();
        record.revoked = true;
        self.put_key(record)
    }

    pub fn put_routing(&self, mut table: RoutingTable) -> u64 {
        self.change(|state, revision| {
            table.revision = revision;
            state.routing.insert(table.tenant_id.clone(), table.clone());
            Change::Routing(table)
        })
    }

    pub fn put_governance(&self, mut governance: Governance) -> u64 {
        self.change(|state, revision| {
            governance.revision = revision;
            state.governance.insert(governance.tenant_id.clone(), governance.clone());
            Change::Governance(governance)
        })
    }

    pub fn put_issuer(&self, mut issuer: Issuer) -> u64 {
        self.change(|state, revision| {
            issuer.revision = revision;
            state.issuers.insert(issuer.issuer_id.clone(), issuer.clone());
            Change::Issuer(issuer)
        })
    }

    /// A key that only `ResolveKey` knows, with this answer.
    pub fn hide_key(&self, record: KeyRecord, read_at: u64) {
        let answer = ResolveKeyResponse { exists: true, revision: read_at, key: Some(record.clone()) };
        self.state.lock().unwrap().hidden.insert(record.key_id, answer);
    }

    /// While held, key lookups are counted but not answered.
    pub fn hold_resolves(&self, held: bool) {
        self.state.lock().unwrap().resolves_held = held;
    }

    pub fn acknowledge(&self, acknowledge: bool) {
        self.state.lock().unwrap().acknowledge = acknowledge;
    }

    pub fn revision(&self) -> u64 {
        self.state.lock().unwrap().revision
    }

    pub fn resolves(&self) -> u64 {
        self.state.lock().unwrap().resolves
    }

    pub fn usage(&self) -> Vec<UsageRecord> {
        self.state.lock().unwrap().usage.values().cloned().collect()
    }

    /// The amount of a budget that the tenant's governance names.
    pub fn set_budget(&self, budget_id: &str, amount_nano: i64) {
        self.state.lock().unwrap().leasing.set_budget(budget_id, amount_nano);
    }

    /// While held, lease requests are received but not answered.
    pub fn hold_lease_answers(&self, held: bool) {
        self.state.lock().unwrap().lease_answers_held = held;
    }

    pub fn leases(&self) -> Vec<(String, LeaseRecord)> {
        self.state.lock().unwrap().leasing.leases()
    }

    /// The amount that counts against the budget now: open leases whole, closed ones at their spending.
    pub fn counted_nano(&self, budget_id: &str) -> i64 {
        self.state.lock().unwrap().leasing.counted_nano(budget_id)
    }

    pub fn usage_count(&self) -> usize {
        let record_ids = self.record_ids.as_ref().map_or(0, |stored| stored.lock().unwrap().len());
        self.state.lock().unwrap().usage.len() + record_ids
    }

    pub fn usage_of(&self, request_id: &str) -> Option<UsageRecord> {
        self.state.lock().unwrap().usage.values().find(|record| record.request_id == request_id).cloned()
    }

    pub fn duplicates(&self) -> u64 {
        self.state.lock().unwrap().duplicates
    }
}

struct Service(Arc<Mutex<State>>);

fn check(metadata: &tonic::metadata::MetadataMap) -> Result<(), Status> {
    let authorization = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let id = metadata.get("tenon-gateway-id").is_some();
    if authorization == Some(&format!("Bearer {TOKEN}")) && id { Ok(()) } else { Err(Status::unauthenticated("unknown gateway")) }
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl GatewayControl for Service {
    type SubscribeStream = Outgoing<Update>;
    type ShipUsageStream = Outgoing<UsageAck>;
    type LeaseStream = Outgoing<LeaseResponse>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        check(request.metadata())?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.0.lock().unwrap();
        let full = Snapshot {
            origin: "testkit".into(),
            keys: state.keys.values().cloned().collect(),
            routing: state.routing.values().cloned().collect(),
            markings: vec![],
            governance: state.governance.values().cloned().collect(),
            issuers: state.issuers.values().cloned().collect(),
        };
        let revision = state.revision;
        let _ = sender.send(Ok(Update { revision, change: Some(Change::Snapshot(full)), ..Default::default() }));
        state.subscribers.push(sender.clone());
        drop(state);
        let shared = self.0.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let revision = shared.lock().unwrap().revision;
                let beat = Change::Heartbeat(Heartbeat { server_time_unix_ms: 0 });
                if sender.send(Ok(Update { revision, change: Some(beat), ..Default::default() })).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }

    async fn resolve_key(&self, request: Request<ResolveKeyRequest>) -> Result<Response<ResolveKeyResponse>, Status> {
        check(request.metadata())?;
        let id = request.into_inner().key_id;
        let answer = {
            let mut state = self.0.lock().unwrap();
            state.resolves += 1;
            let known = state.keys.get(&id).cloned();
            let revision = state.revision;
            let known = known.map(|key| ResolveKeyResponse { exists: true, key: Some(key), revision });
            let answer = state.hidden.get(&id).cloned().or(known);
            answer.unwrap_or(ResolveKeyResponse { exists: false, key: None, revision })
        };
        while self.0.lock().unwrap().resolves_held {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Response::new(answer))
    }

    async fn lease(&self, request: Request<Streaming<LeaseRequest>>) -> Result<Response<Self::LeaseStream>, Status> {
        check(request.metadata())?;
        let (sender, receiver) = mpsc::channel(64);
        let (shared, mut requests) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut number = 0;
            while let Some(Ok(request)) = requests.next().await {
                number += 1;
                let answer = {
                    let state = &mut *shared.lock().unwrap();
                    state.leasing.answer(&request, number, state.governance.values(), state.usage.values())
                };
                if sender.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        let shared = self.0.clone();
        let answers = ReceiverStream::new(receiver).then(move |answer| {
            let shared = shared.clone();
            async move {
                while shared.lock().unwrap().lease_answers_held {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                answer
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn ship_usage(&self, request: Request<Streaming<UsageBatch>>) -> Result<Response<Self::ShipUsageStream>, Status> {
        check(request.metadata())?;
        let (sender, receiver) = mpsc::channel(64);
        let shared = self.0.clone();
        let mut batches = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(batch)) = batches.next().await {
                let ack = store(&mut shared.lock().unwrap(), batch);
                if ack.is_some_and(|ack| sender.try_send(Ok(ack)).is_err()) {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Keeps each record id once, as PostgreSQL does.
fn store(state: &mut State, batch: UsageBatch) -> Option<UsageAck> {
    let mut ack = UsageAck { batch_id: batch.batch_id, ..UsageAck::default() };
    for record in batch.records {
        if state.usage.contains_key(&record.record_id) {
            ack.duplicates += 1;
            state.duplicates += 1;
        } else {
            ack.stored += 1;
            state.usage.insert(record.record_id.clone(), record);
        }
    }
    state.acknowledge.then_some(ack)
}
