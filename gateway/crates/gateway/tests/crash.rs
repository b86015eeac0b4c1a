//! Repeated kill -9 under load at every route, HTTP and gRPC: a call whose answer arrived complete has exactly one usage record, with the
//! outcome completed.
//!
//! `TENON_CRASH_KILLS` sets how often (default 20; `make test-crash` runs 1,000).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

#[allow(dead_code)]
#[path = "conformance/upstream_script.rs"]
mod upstream_script;
#[allow(dead_code)]
#[path = "conformance/rows.rs"]
mod rows;
mod support;

use rows::{Kind, ROWS, Row, head, protocol_name};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use support::open_inference::{answered, field};
use support::{TENANT, answer_summary::session_end, answer_summary::summary, endpoint, model, setup, table};
use tenon_contract::{Outcome, Protocol, UsageRecord, UsageSource};
use tenon_testkit::{
    Answer, Client, Control, Gateway, GrpcCaller, GrpcRequest, GrpcScript, GrpcStep, GrpcUpstream, Setup, TestKey, Upstream, wait_for,
};

const CALLERS: usize = 16;
/// Callers of the gRPC routes, over HTTP/2 on the other listener.
const GRPC_CALLERS: usize = 4;

struct Stack {
    control: Control,
    upstream: Upstream,
    grpc_upstream: GrpcUpstream,
    key: TestKey,
    setup: Setup,
    gateway: Gateway,
    grpc: SocketAddr,
    rows: Vec<&'static Row>,
    /// Request ids of answers that arrived whole, with their row.
    acknowledged: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Stack {
    fn new() -> Self {
        let control = Control::start();
        let upstream = Upstream::start(upstream_script::script);
        let grpc_upstream = GrpcUpstream::start(infers);
        let protocols = [Protocol::Openai, Protocol::Anthropic, Protocol::KserveGrpc].map(|protocol| {
            let name = format!("good.{}", protocol_name(protocol));
            let over_http = format!("http://{}/good/v1", upstream.address);
            let mut endpoint = endpoint(&name, &if protocol == Protocol::KserveGrpc { grpc_upstream.url() } else { over_http });
            endpoint.protocol = protocol as i32;
            (endpoint, model(&name, &name))
        });
        let (endpoints, models) = protocols.into_iter().unzip();
        control.put_routing(table(endpoints, models));
        let key = TestKey::new("crashcras1", TENANT);
        control.put_key(key.record.clone());
        let grpc = tenon_testkit::reserved_address();
        let setup = setup(&control).with("TENON_GATEWAY_WAL_SEGMENT_BYTES", 128 << 10).with("TENON_GATEWAY_GRPC_LISTEN", grpc);
        let gateway = setup.start();
        let rows = callable_rows();
        Self { control, upstream, grpc_upstream, key, setup, gateway, grpc, rows, acknowledged: Arc::default() }
    }

    fn callers(&self, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<()>> {
        let caller = |n: usize| {
            let (stop, noted, key, rows) = (stop.clone(), self.acknowledged.clone(), self.key.text.clone(), self.rows.clone());
            let (at, grpc) = (self.gateway.address, self.grpc);
            std::thread::spawn(move || match n.checked_sub(CALLERS) {
                None => call_until(&stop, &noted, at, &key, &rows, n),
                Some(n) => infer_until(&stop, &noted, grpc, &key, &rows, n),
            })
        };
        (0..CALLERS + GRPC_CALLERS).map(caller).collect()
    }
}

/// The rows of the product that call a model.
fn callable_rows() -> Vec<&'static Row> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tenon-gateway")).arg("routes").output().unwrap();
    let routes: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let has = |path: &str| routes.as_array().unwrap().iter().any(|route| route["path"] == path);
    ROWS.iter().filter(|row| row.is_call() && has(row.path) && (!row.is_translated() || has("/v1/messages"))).collect()
}

#[test]
fn no_acknowledged_call_is_lost_or_doubled() {
    let kills: u32 = std::env::var("TENON_CRASH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let mut stack = Stack::new();
    let stop = Arc::new(AtomicBool::new(false));
    let callers = stack.callers(&stop);
    for kill in 0..kills {
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
        std::thread::sleep(Duration::from_millis(60 + u64::from(nanos / 1000 % 200)));
        // One time in three the control plane does not acknowledge, so that records wait through several processes.
        stack.control.acknowledge(kill % 3 != 1);
        stack.gateway.kill();
        stack.gateway = stack.setup.spawn();
    }
    stop.store(true, Ordering::SeqCst);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    stack.control.acknowledge(true);
    // One more process, so that records without an acknowledgement on the running connection ship too.
    stack.gateway.kill();
    stack.gateway = stack.setup.start();
    let acknowledged = stack.acknowledged.lock().unwrap().clone();
    let ids = || stack.control.usage().into_iter().map(|r| r.request_id).collect::<HashSet<_>>();
    wait_for("every acknowledged call has its record", || {
        let ids = ids();
        acknowledged.iter().all(|(id, _)| ids.contains(id))
    });
    wait_for("all is shipped", || stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    judge(&stack, &acknowledged, kills);
}

fn judge(stack: &Stack, acknowledged: &[(String, usize)], kills: u32) {
    let mut records: HashMap<String, Vec<UsageRecord>> = HashMap::new();
    for record in stack.control.usage() {
        records.entry(record.request_id.clone()).or_default().push(record);
    }
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, row) in acknowledged {
        let row = stack.rows[*row];
        let [record] = &records[id][..] else { panic!("{id} at {} has {} records", row.name(), records[id].len()) };
        let source = if row.usage == (0, 0) { record.usage_source() } else { UsageSource::Engine };
        assert_eq!((record.outcome(), record.usage_source()), (Outcome::Completed, source), "{id} at {}", row.name());
        assert_eq!((record.input_tokens, record.output_tokens), row.usage, "{id} at {}", row.name());
        *calls.entry(row.short).or_default() += 1;
    }
    let unknown = records.values().flatten().filter(|r| r.outcome() == Outcome::Unknown).count();
    println!(
        "{kills} kills, {} acknowledged calls at {} rows, {} records, {unknown} unknown, {} shipped again: 0 lost, 0 doubled\n{calls:?}",
        acknowledged.len(),
        calls.len(),
        records.len(),
        stack.control.duplicates()
    );
    assert_eq!(calls.len(), stack.rows.len(), "every row was called");
    assert!(acknowledged.len() > kills as usize * CALLERS, "there was load");
    let received = stack.upstream.count() + stack.grpc_upstream.requests.lock().unwrap().len();
    assert!(records.len() <= received + (CALLERS + GRPC_CALLERS) * kills as usize, "no record without a call");
}

/// Calls one row after another over one connection after another, and notes the id of each complete answer.
fn call_until(stop: &AtomicBool, acknowledged: &Mutex<Vec<(String, usize)>>, at: SocketAddr, key: &str, rows: &[&Row], first: usize) {
    let mut turn = first;
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut client) = Client::connect(at) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            turn += 1;
            let index = turn % rows.len();
            let row = rows[index];
            if row.is_grpc() {
                continue;
            }
            if client.write(&request(row, key)).is_err() {
                break;
            }
            let Ok(mut answer) = client.try_head() else { break };
            let end = end(row, &mut client, &mut answer);
            if end != row.begins() {
                break;
            }
            acknowledged.lock().unwrap().push((answer.request_id(), index));
            if row.kind == Kind::Socket {
                break; // a session takes its connection with it
            }
        }
    }
}

/// As [`call_until`], for the gRPC rows: an answer is complete when its status has come.
fn infer_until(stop: &AtomicBool, acknowledged: &Mutex<Vec<(String, usize)>>, at: SocketAddr, key: &str, rows: &[&Row], first: usize) {
    let grpc_rows: Vec<_> = rows.iter().enumerate().filter(|(_, row)| row.is_grpc()).collect();
    let (mut turn, bearer) = (first, format!("Bearer {key}"));
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut caller) = GrpcCaller::try_connect(at) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            turn += 1;
            let (index, row) = grpc_rows[turn % grpc_rows.len()];
            let method = row.path.rsplit('/').next().unwrap();
            let message = field(1, format!("good.{}", row.protocol_name()).as_bytes());
            let seen = caller.call(method, &[("authorization", &bearer)], &[message], None);
            if seen.status() != Some(0) {
                break;
            }
            acknowledged.lock().unwrap().push((seen.request_id(), index));
        }
    }
}

/// The script of the gRPC endpoint.
fn infers(request: &GrpcRequest) -> GrpcScript {
    match request.path.rsplit('/').next().unwrap_or_default() {
        "ModelStreamInfer" => vec![GrpcStep::Send(field(2, &answered(11, 7)))],
        "ModelInfer" => vec![GrpcStep::Send(answered(11, 7)), GrpcStep::End(0)],
        _ => vec![GrpcStep::Send(Vec::new()), GrpcStep::End(0)],
    }
}

/// The summary of the answer, equal to [`Row::begins`] when it is complete.
fn end(row: &Row, client: &mut Client, answer: &mut Answer) -> String {
    if answer.status == 101 {
        return session_end(&client.rest_until(&[0x88, 2, 3, 0xe8]));
    }
    client.read_body(answer);
    summary(row.dialect, row.streamed, answer)
}

fn request(row: &Row, key: &str) -> Vec<u8> {
    let sent = row.request(&format!("good.{}", row.protocol_name()));
    [head(row, key, &sent.content_type, sent.body.len()).into_bytes(), sent.body].concat()
}
