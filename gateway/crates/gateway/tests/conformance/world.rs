//! One gateway, one control plane, one upstream with a bad address for each fault: what every cell of the table is run against.

use crate::rows::{ROWS, Row, Sent, head, spoken_name};
use crate::support::told::{session_end, told};
use crate::support::{TENANT, endpoint, model, setup, table};
use crate::{answers, governed, grpc};
use std::net::SocketAddr;
use std::time::Duration;
use tenon_contract::{Endpoint, KeyKind, KeyRecord, Model, Protocol};
use tenon_testkit::{Client, Control, Gateway, GrpcUpstream, Setup, TestKey, Upstream};

pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Faults that the upstream acts by the endpoint's address.
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
const SHORT_MS: u32 = 80;

pub struct World {
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

/// What a caller saw of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: String,
    pub told: String,
}

const SPOKEN: [Protocol; 3] = [Protocol::Openai, Protocol::Anthropic, Protocol::KserveGrpc];

/// Endpoint and model of one fault, in one protocol.
fn faulty(fault: &str, protocol: Protocol, url: &str) -> (Endpoint, Model) {
    let name = format!("{fault}.{}", spoken_name(protocol));
    let mut made = endpoint(&name, url);
    made.protocol = protocol as i32;
    match fault {
        "silent" => made.headers_timeout_ms = SHORT_MS,
        "stall-first" => made.first_token_timeout_ms = SHORT_MS,
        "stall" => made.idle_timeout_ms = SHORT_MS,
        "occupy" if protocol == Protocol::KserveGrpc => made.total_timeout_ms = grpc::OCCUPY_MS,
        "silent-total" => made.total_timeout_ms = SHORT_MS,
        "uncleared" => made.cleared_markings.clear(),
        "elsewhere" => made.operations = vec!["nothing-it-knows".into()],
        _ => {}
    }
    (made, model(&name, &name))
}

fn endpoints_and_models(upstream: &Upstream, grpc: &GrpcUpstream) -> (Vec<Endpoint>, Vec<Model>) {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let at = |fault: &str, protocol: Protocol| match fault {
        "dead" => format!("http://{dead}/v1"),
        "broken" => "ftp://nowhere/v1".into(),
        _ if protocol == Protocol::KserveGrpc => grpc.url(),
        _ => format!("http://{}/{fault}/v1", upstream.address),
    };
    let own = ["silent-total", "uncleared", "elsewhere", "dead", "broken"];
    let faults = FAULTS.into_iter().chain(own);
    faults.flat_map(|fault| SPOKEN.map(|protocol| faulty(fault, protocol, &at(fault, protocol)))).unzip()
}

impl World {
    pub fn new() -> Self {
        let control = Control::start();
        let upstream = Upstream::start(answers::script);
        let key = TestKey::new("goodgoodk1", TENANT);
        control.put_key(key.record.clone());
        let grpc_upstream = GrpcUpstream::start(grpc::script);
        let (endpoints, models) = endpoints_and_models(&upstream, &grpc_upstream);
        control.put_routing(table(endpoints, models));
        control.put_governance(governed::governance(&control));
        let setup = setup(&control).with("TENON_GATEWAY_BODY_BYTES_MAX", BODY_BYTES_MAX).with("TENON_GATEWAY_BODY_READ_MS", 250);
        let grpc = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let setup = setup.with("TENON_GATEWAY_GRPC_LISTEN", grpc);
        let gateway = setup.start();
        Self { control, upstream, grpc_upstream, grpc, _setup: setup, gateway, key }
    }

    /// A key of its own, known to the gateway when this returns.
    pub fn make_key(&self, id: &str, change: impl FnOnce(&mut KeyRecord)) -> TestKey {
        let key = TestKey::new(id, TENANT).with(change);
        self.gateway.wait_revision(self.control.put_key(key.record.clone()));
        key
    }

    pub fn agent(&self) -> TestKey {
        self.make_key("agentagen1", |r| r.kind = KeyKind::Agent as i32)
    }

    /// A good request with this key for this fault's model.
    pub fn call(&self, row: &Row, key: &str, fault: &str) -> Seen {
        if row.is_grpc() {
            return grpc::call(self, row, key, fault);
        }
        self.send(row, key, &row.request(&format!("{fault}.{}", row.protocol_name())))
    }

    pub fn send(&self, row: &Row, key: &str, sent: &Sent) -> Seen {
        self.raw(row, &[head(row, key, &sent.content_type, sent.body.len()).as_bytes(), &sent.body].concat())
    }

    pub fn raw(&self, row: &Row, raw: &[u8]) -> Seen {
        let mut client = self.open(raw);
        see(row, &mut client)
    }

    pub fn open(&self, raw: &[u8]) -> Client {
        let mut client = Client::connect(self.gateway.address).unwrap();
        // Refused while it is still being sent: the answer stands, the rest of the body need not arrive.
        let _ = client.write(raw);
        client
    }

    /// Sends a call, waits until the upstream has it, and gives the request id that the upstream was told.
    pub fn open_running(&self, row: &Row, key: &str, fault: &str) -> (Client, String) {
        let sent = row.request(&format!("{fault}.{}", row.protocol_name()));
        let before = self.asked_at(fault);
        let client = self.open(&[head(row, key, &sent.content_type, sent.body.len()).as_bytes(), &sent.body].concat());
        tenon_testkit::wait_for("the upstream is asked", || self.asked_at(fault).len() > before.len());
        (client, self.asked_at(fault).last().cloned().unwrap())
    }

    /// Ids of what was asked at a fault's address.
    fn asked_at(&self, fault: &str) -> Vec<String> {
        let asked = self.upstream.asked.lock().unwrap();
        let at = format!(" /{fault}/v1/");
        asked.iter().filter(|a| a.line.contains(&at)).filter_map(|a| a.header("x-request-id")).map(str::to_owned).collect()
    }

    /// How often the upstream was asked for this request.
    pub fn asked_for(&self, id: &str) -> usize {
        let over_grpc = self.grpc_upstream.asked.lock().unwrap();
        let over_grpc = over_grpc.iter().filter(|asked| asked.headers.get("x-request-id").is_some_and(|theirs| theirs == id)).count();
        over_grpc + self.upstream.asked.lock().unwrap().iter().filter(|asked| asked.header("x-request-id") == Some(id)).count()
    }

    pub fn wait_shipped(&self) {
        tenon_testkit::wait_for("nothing runs", || self.gateway.metric("tenon_gateway_calls_running") == 0.0);
        tenon_testkit::wait_for("all is shipped", || self.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn see(row: &Row, client: &mut Client) -> Seen {
    let Ok(mut answer) = client.try_head() else {
        return Seen { id: String::new(), told: "no answer".into() };
    };
    if answer.status == 101 {
        answer.body = client.rest();
        return Seen { id: answer.request_id(), told: session_end(&answer.body) };
    }
    client.read_body(&mut answer);
    Seen { id: answer.request_id(), told: told(row.dialect, row.streamed, &answer) }
}

/// A policy's own key ids: ten characters that say which policy and which row.
pub fn key_id(policy: &str, row: &Row) -> String {
    let index = ROWS.iter().position(|known| known.short == row.short).unwrap();
    format!("{policy:x<7.7}{index:03}")
}
