//! The stack that most tests start: one tenant, one model, one upstream, one gateway.
#![allow(dead_code)]

pub mod answer_summary;
pub mod open_inference;
pub mod realtime;

use tenon_contract::{Endpoint, Model, Protocol, Route, RoutingTable};
use tenon_testkit::{Answer, Client, Control, Gateway, Setup, Step, TestKey, Upstream, json_answer, post, seal, sse_head};

pub const TENANT: &str = "019a0000-0000-7000-8000-0000000000a1";
pub const CHAT: &str = "/v1/chat/completions";
pub const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
pub const STREAM_BODY: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
pub const ANSWER: &str = r#"{"choices":[{"message":{"content":"yo"}}],"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}"#;

pub struct Stack {
    pub control: Control,
    pub upstream: Upstream,
    pub key: TestKey,
    pub setup: Setup,
    pub gateway: Gateway,
}

pub fn endpoint(id: &str, url: &str) -> Endpoint {
    Endpoint {
        endpoint_id: id.into(),
        base_url: url.into(),
        protocol: Protocol::Openai as i32,
        sealed_credential: seal("upstream-secret", id),
        cleared_markings: vec!["pii".into()],
        private_network_allowed: true,
        ..Endpoint::default()
    }
}

pub fn model(name: &str, endpoint_id: &str) -> Model {
    let route = Route { endpoint_id: endpoint_id.into(), weight: 1, ..Default::default() };
    Model { name: name.into(), routes: vec![route], ..Default::default() }
}

pub fn table(endpoints: Vec<Endpoint>, models: Vec<Model>) -> RoutingTable {
    RoutingTable { tenant_id: TENANT.into(), revision: 0, endpoints, models }
}

pub fn setup(control: &Control) -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_tenon-gateway"), control)
}

impl Stack {
    pub fn new() -> Self {
        Self::with(|setup| setup)
    }

    pub fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let control = Control::start();
        let upstream = Upstream::start(|_| vec![Step::Send(json_answer(200, ANSWER))]);
        let key = TestKey::new("keykeykey1", TENANT);
        control.put_key(key.record.clone());
        control.put_routing(table(vec![endpoint("e1", &upstream.url())], vec![model("m", "e1")]));
        let setup = change(setup(&control));
        let gateway = setup.start();
        Self { control, upstream, key, setup, gateway }
    }

    pub fn chat(&self, body: &str) -> Answer {
        post(self.gateway.address, CHAT, &self.key.text, body)
    }

    pub fn open(&self, body: &str) -> Client {
        Client::post(self.gateway.address, CHAT, &[("x-api-key", &self.key.text)], body)
    }

    pub fn put_key(&self, key: &TestKey) {
        self.gateway.wait_revision(self.control.put_key(key.record.clone()));
    }

    /// Waits for the usage record of an answer.
    pub fn usage(&self, answer: &Answer) -> tenon_contract::UsageRecord {
        let id = answer.request_id();
        tenon_testkit::wait_for("the usage record", || self.control.usage_of(&id).is_some());
        self.control.usage_of(&id).expect("just seen")
    }
}

pub fn frame(text: &str) -> Vec<u8> {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}\n\n").into_bytes()
}

pub const USAGE_FRAME: &[u8] = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n";
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A complete stream of an engine when usage is requested.
pub fn whole_stream() -> Vec<Step> {
    vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::Send(frame("b")), Step::Send([USAGE_FRAME, DONE].concat()), Step::Close]
}

/// Writes a page of docs/reference (`TENON_GENERATE=1`), or fails with a unified diff when the page is not what this run produced.
pub fn checked_page(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../docs/reference").join(name);
    if std::env::var_os("TENON_GENERATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    let diff = similar::TextDiff::from_lines(&*checked_in, text).unified_diff().header(name, "this run").to_string();
    assert!(diff.is_empty(), "docs/reference/{name} differs from this run; TENON_GENERATE=1 writes it again.\n{diff}");
}

pub fn limit(id: &str, subject: tenon_contract::Subject, subject_id: &str, requests: u64, tokens: u64, concurrency: u32) -> tenon_contract::Limit {
    tenon_contract::Limit {
        limit_id: id.into(),
        subject: subject as i32,
        subject_id: subject_id.into(),
        requests_per_minute: requests,
        tokens_per_minute: tokens,
        concurrency,
        also_keys: vec![],
    }
}
