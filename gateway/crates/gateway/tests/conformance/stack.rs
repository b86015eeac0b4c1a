//! The stack of the suite: one gateway, one control plane, one upstream with an address for each fault.

use crate::rows::{ROWS, Row, Sent, head, protocol_name};
use crate::support::answer_summary::{session_end, summary};
use crate::support::{TENANT, endpoint, model, setup, table};
use crate::{grpc, limits, upstream_script};
use std::net::SocketAddr;
use tenon_contract::{Endpoint, KeyKind, KeyRecord, Model, Protocol};
use tenon_testkit::{Client, Control, Gateway, GrpcUpstream, Setup, TestKey, Upstream};

pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Faults that the endpoint's address selects.
const FAULTS: [&str; 17] = [
    "good",
    "400",
    "401",
    "429",
    "500",
    "503",
    "redirect",
    "not-http",
    "encoded",
    "cut-head",
    "cut",
    "silent",
    "stall-first",
    "stall",
    "hold",
    "leave",
    "occupy",
];
/// Long enough for a call to reach the upstream on a busy machine.
const SHORT_MS: u32 = 200;

pub struct Stack {
    pub control: Control,
    pub upstream: Upstream,
    pub grpc_upstream: GrpcUpstream,
    /// Holds the data directory.
    _setup: Setup,
    pub gateway: Gateway,
    pub key: TestKey,
    /// The gateway's other listener.
    pub grpc: SocketAddr,
}

/// The outcome of one request for its caller.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub id: String,
    pub summary: String,
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Openai, Protocol::Anthropic, Protocol::KserveGrpc];

/// Endpoint and model of one fault, in one protocol.
fn faulty(fault: &str, protocol: Protocol, url: &str) -> (Endpoint, Model) {
    let name = format!("{fault}.{}", protocol_name(protocol));
    let mut faulty = endpoint(&name, url);
    faulty.protocol = protocol as i32;
    match fault {
        "silent" => faulty.headers_timeout_ms = SHORT_MS,
        "stall-first" => faulty.first_token_timeout_ms = SHORT_MS,
        "stall" => faulty.idle_timeout_ms = SHORT_MS,
        "occupy" if protocol == Protocol::KserveGrpc => faulty.total_timeout_ms = grpc::OCCUPY_MS,
        "silent-total" => faulty.total_timeout_ms = SHORT_MS,
        "uncleared" => faulty.cleared_markings.clear(),
        "elsewhere" => faulty.operations = vec!["nothing-it-knows".into()],
        _ => {}
    }
    (faulty, model(&name, &name))
}

fn endpoints_and_models(upstream: &Upstream, grpc: &GrpcUpstream) -> (Vec<Endpoint>, Vec<Model>) {
    let dead = tenon_testkit::unused_address();
    let at = |fault: &str, protocol: Protocol| match fault {
        "dead" => format!("http://{dead}/v1"),
        "broken" => "ftp://nowhere/v1".into(),
        _ if protocol == Protocol::KserveGrpc => grpc.url(),
        _ => format!("http://{}/{fault}/v1", upstream.address),
    };
    let own = ["silent-total", "uncleared", "elsewhere", "dead", "broken"];
    let faults = FAULTS.into_iter().chain(own);
    faults.flat_map(|fault| PROTOCOLS.map(|protocol| faulty(fault, protocol, &at(fault, protocol)))).unzip()
}

impl Stack {
    pub fn new() -> Self {
        let control = Control::start();
        let upstream = Upstream::start(upstream_script::script);
        let key = TestKey::new("goodgoodk1", TENANT);
        control.put_key(key.record.clone());
        let grpc_upstream = GrpcUpstream::start(grpc::script);
        let (endpoints, models) = endpoints_and_models(&upstream, &grpc_upstream);
        control.put_routing(table(endpoints, models));
        control.put_governance(limits::governance(&control));
        let setup = setup(&control).with("TENON_GATEWAY_BODY_BYTES_MAX", BODY_BYTES_MAX).with("TENON_GATEWAY_BODY_READ_MS", 250);
        let grpc = tenon_testkit::reserved_address();
        let setup = setup.with("TENON_GATEWAY_GRPC_LISTEN", grpc);
        let gateway = setup.start();
        Self { control, upstream, grpc_upstream, grpc, _setup: setup, gateway, key }
    }

    /// A new key, known to the gateway when this returns.
    pub fn make_key(&self, id: &str, change: impl FnOnce(&mut KeyRecord)) -> TestKey {
        let key = TestKey::new(id, TENANT).with(change);
        self.gateway.wait_revision(self.control.put_key(key.record.clone()));
        key
    }

    pub fn agent(&self) -> TestKey {
        self.make_key("agentagen1", |r| r.kind = KeyKind::Agent as i32)
    }

    /// A good request with this key for this fault's model.
    pub fn call(&self, row: &Row, key: &str, fault: &str) -> Outcome {
        if row.is_grpc() {
            return grpc::call(self, row, key, fault);
        }
        self.send(row, key, &row.request(&format!("{fault}.{}", row.protocol_name())))
    }

    pub fn send(&self, row: &Row, key: &str, sent: &Sent) -> Outcome {
        self.raw(row, &[head(row, key, &sent.content_type, sent.body.len()).as_bytes(), &sent.body].concat())
    }

    pub fn raw(&self, row: &Row, raw: &[u8]) -> Outcome {
        let mut client = self.open(raw);
        outcome(row, &mut client)
    }

    pub fn open(&self, raw: &[u8]) -> Client {
        let mut client = Client::connect(self.gateway.address).unwrap();
        // It may be refused while it is still being sent; then the answer counts, and the rest need not arrive.
        let _ = client.write(raw);
        client
    }

    /// Sends a call, waits until the upstream has it, and returns the request id that the upstream received.
    pub fn open_running(&self, row: &Row, key: &str, fault: &str) -> (Client, String) {
        let sent = row.request(&format!("{fault}.{}", row.protocol_name()));
        let before = self.received_at(fault);
        let client = self.open(&[head(row, key, &sent.content_type, sent.body.len()).as_bytes(), &sent.body].concat());
        tenon_testkit::wait_for("the upstream gets the call", || self.received_at(fault).len() > before.len());
        (client, self.received_at(fault).last().cloned().unwrap())
    }

    /// Request ids received at a fault's address.
    fn received_at(&self, fault: &str) -> Vec<String> {
        let requests = self.upstream.requests.lock().unwrap();
        let at = format!(" /{fault}/v1/");
        requests.iter().filter(|r| r.line.contains(&at)).filter_map(|r| r.header("x-request-id")).map(str::to_owned).collect()
    }

    /// How often the upstreams received this request.
    pub fn received(&self, id: &str) -> usize {
        let over_grpc = self.grpc_upstream.requests.lock().unwrap();
        let over_grpc = over_grpc.iter().filter(|request| request.headers.get("x-request-id").is_some_and(|theirs| theirs == id)).count();
        over_grpc + self.upstream.requests.lock().unwrap().iter().filter(|request| request.header("x-request-id") == Some(id)).count()
    }

    pub fn wait_shipped(&self) {
        tenon_testkit::wait_for("nothing runs", || self.gateway.metric("tenon_gateway_calls_running") == 0.0);
        tenon_testkit::wait_for("all is shipped", || self.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    }
}

pub fn outcome(row: &Row, client: &mut Client) -> Outcome {
    let Ok(mut answer) = client.try_head() else {
        return Outcome { id: String::new(), summary: "no answer".into() };
    };
    if answer.status == 101 {
        answer.body = client.rest();
        return Outcome { id: answer.request_id(), summary: session_end(&answer.body) };
    }
    client.read_body(&mut answer);
    Outcome { id: answer.request_id(), summary: summary(row.dialect, row.streamed, &answer) }
}

/// A key id for a policy and a row: ten characters.
pub fn key_id(policy: &str, row: &Row) -> String {
    let index = ROWS.iter().position(|known| known.short == row.short).unwrap();
    format!("{policy:x<7.7}{index:03}")
}
