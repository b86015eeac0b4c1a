//! A stack for the Open Inference Protocol: an endpoint, a gateway and callers.

use super::{TENANT, endpoint, model, setup, table};
use std::net::SocketAddr;
use tenon_contract::{Endpoint, Protocol, UsageRecord};
use tenon_testkit::{Control, Gateway, GrpcAnswer, GrpcCaller, GrpcRequest, GrpcScript, GrpcStep, GrpcUpstream, Setup, TestKey, wait_for};

/// A length-delimited field.
pub fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()][..], value].concat()
}

pub fn infer(model: &str) -> Vec<u8> {
    [field(3, b"id-1"), field(1, model.as_bytes()), field(5, &field(1, b"text_input")), field(7, b"\x02\0\0\0hi")].concat()
}

pub fn answered(input: u8, output: u8) -> Vec<u8> {
    let count = |name: &[u8], value: u8| field(4, &[field(1, name), field(2, &[0x10, value])].concat());
    [field(1, b"theirs"), field(3, b"id-1"), count(b"prompt_tokens", input), count(b"completion_tokens", output)].concat()
}

/// The model's name selects the steps.
fn script(request: &GrpcRequest) -> GrpcScript {
    let named = |name: &str| request.message.windows(name.len()).any(|part| part == name.as_bytes());
    let streamed = request.path.ends_with("ModelStreamInfer");
    let ready = if streamed { field(2, &answered(11, 3)) } else { answered(11, 7) };
    match () {
        () if named("refuse") => vec![GrpcStep::End(3)],
        () if named("credential") => vec![GrpcStep::End(16)],
        () if named("stall") => vec![GrpcStep::Stall],
        () if named("cut") => vec![GrpcStep::Send(ready), GrpcStep::Cut],
        () if named("hold") => vec![GrpcStep::Send(ready), GrpcStep::Stall],
        () if streamed => vec![GrpcStep::Send(ready)],
        () => vec![GrpcStep::Send(ready), GrpcStep::End(0)],
    }
}

pub struct InferenceStack {
    pub control: Control,
    pub upstream: GrpcUpstream,
    pub key: TestKey,
    pub gateway: Gateway,
    pub grpc: SocketAddr,
    pub setup: Setup,
}

impl InferenceStack {
    pub fn new() -> Self {
        Self::with(|_| {}, |setup| setup)
    }

    pub fn with(change: impl FnOnce(&mut Endpoint), setting: impl FnOnce(Setup) -> Setup) -> Self {
        let control = Control::start();
        let upstream = GrpcUpstream::start(script);
        let key = TestKey::new("keykeykey1", TENANT);
        control.put_key(key.record.clone());
        let mut here = endpoint("e1", &upstream.url());
        here.protocol = Protocol::KserveGrpc as i32;
        change(&mut here);
        let mut renamed = model("m", "e1");
        renamed.routes[0].upstream_model = "their-name-for-it".into();
        let names = ["refuse", "credential", "stall", "cut", "hold"];
        let models = names.iter().map(|name| model(name, "e1")).chain([renamed]).collect();
        control.put_routing(table(vec![here], models));
        let grpc = tenon_testkit::reserved_address();
        let setup = setting(setup(&control)).with("TENON_GATEWAY_GRPC_LISTEN", grpc);
        let gateway = setup.start();
        Self { control, upstream, key, gateway, grpc, setup }
    }

    pub fn call(&self, method: &str, messages: &[Vec<u8>]) -> GrpcAnswer {
        self.with_key(&self.key.text, method, messages)
    }

    pub fn with_key(&self, key: &str, method: &str, messages: &[Vec<u8>]) -> GrpcAnswer {
        let bearer = format!("Bearer {key}");
        GrpcCaller::connect(self.grpc).call(method, &[("authorization", &bearer)], messages, None)
    }

    pub fn record(&self, answer: &GrpcAnswer) -> UsageRecord {
        let id = answer.request_id();
        wait_for("the record", || self.control.usage_of(&id).is_some());
        self.control.usage_of(&id).unwrap()
    }

    pub fn received(&self) -> usize {
        self.upstream.requests.lock().unwrap().len()
    }
}
