//! The gRPC routes of the Open Inference Protocol in the same table: how they are called, and the gRPC statuses of the expected answers.
//! Messages, streams, deadlines and cancellation, which only gRPC has, are tested in tests/kserve.rs.

use crate::rows::Row;
use crate::stack::{Outcome, Stack};
use std::time::Duration;
use tenon_testkit::{GrpcAnswer, GrpcCaller, GrpcRequest, GrpcScript, GrpcStep};

/// A call that occupies a slot ends by itself.
pub const OCCUPY_MS: u32 = 2_000;

/// Policies that also apply to gRPC; the others are about HTTP/1 bodies and heads.
const POLICIES: [&str; 23] = [
    "a good request",
    "no key",
    "not a key of ours",
    "unknown key",
    "right key id, wrong secret",
    "revoked key",
    "expired key",
    "a token of an unknown issuer",
    "key of another network",
    "key bound to a certificate",
    "operation not in the key's scope",
    "an agent's base key",
    "model unknown",
    "model not allowed",
    "not cleared",
    "no endpoint serves the operation",
    "no usable endpoint",
    "limit of requests reached",
    "limit of tokens reached",
    "limit of calls at a time reached",
    "hard budget spent",
    "hard budget, model without a price",
    "endpoint: unreachable",
];

/// The gRPC statuses of HTTP statuses.
const STATUSES: [(&str, u8, &str); 9] = [
    ("200", 0, "OK"),
    ("400", 3, "INVALID_ARGUMENT"),
    ("401", 16, "UNAUTHENTICATED"),
    ("402", 8, "RESOURCE_EXHAUSTED"),
    ("403", 7, "PERMISSION_DENIED"),
    ("404", 5, "NOT_FOUND"),
    ("429", 8, "RESOURCE_EXHAUSTED"),
    ("502", 14, "UNAVAILABLE"),
    ("503", 14, "UNAVAILABLE"),
];

/// The outcome expected over HTTP, as a gRPC caller receives it.
pub fn expected(policy: &str, row: &Row, over_http: Option<String>) -> Option<String> {
    let over_http = over_http.filter(|_| POLICIES.contains(&policy))?;
    if row.short == "live" {
        // Anyone who can connect may know that the gateway is alive.
        return Some("OK · no record · upstream not called".into());
    }
    let (summary, rest) = over_http.split_once(" · ")?;
    let (status, code) = summary.split_once(' ').unwrap_or((summary, ""));
    let (_, _, name) = STATUSES.iter().find(|(http, ..)| *http == status)?;
    // A stream has the same status.
    let code = if *name == "OK" { "" } else { code };
    Some(format!("{} · {rest}", format!("{name} {code}").trim_end()))
}

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()][..], value].concat()
}

fn message(model: &str) -> Vec<u8> {
    field(1, model.as_bytes())
}

fn answered() -> Vec<u8> {
    let count = |name: &[u8], value: u8| field(4, &[field(1, name), field(2, &[0x10, value])].concat());
    [count(b"prompt_tokens", 11), count(b"completion_tokens", 7)].concat()
}

/// The script of the gRPC upstream.
pub fn script(request: &GrpcRequest) -> GrpcScript {
    if request.message.windows(7).any(|part| part == b"occupy.") {
        return vec![GrpcStep::Stall];
    }
    match request.path.rsplit('/').next().unwrap_or_default() {
        "ModelStreamInfer" => vec![GrpcStep::Send(field(2, &answered()))],
        "ModelInfer" => vec![GrpcStep::Send(answered()), GrpcStep::End(0)],
        _ => vec![GrpcStep::Send(Vec::new()), GrpcStep::End(0)],
    }
}

/// Calls the row's method with this key for this fault's model.
pub fn call(stack: &Stack, row: &Row, key: &str, fault: &str) -> Outcome {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    let headers = if key.is_empty() { &[][..] } else { &headers[..] };
    let method = row.path.rsplit('/').next().unwrap_or_default();
    let message = message(&format!("{fault}.{}", row.protocol_name()));
    outcome(&GrpcCaller::connect(stack.grpc).call(method, headers, &[message], None))
}

fn outcome(answer: &GrpcAnswer) -> Outcome {
    let name = answer.status().and_then(|status| STATUSES.iter().find(|(_, number, _)| *number == status));
    let summary = format!("{} {}", name.map_or("ANOTHER STATUS", |(.., name)| name), answer.code());
    Outcome { id: answer.request_id(), summary: summary.trim_end().to_owned() }
}

/// Makes a call while another one is running.
pub fn beside_a_running_call(stack: &Stack, row: &Row, key: &str) -> Outcome {
    std::thread::scope(|scope| {
        let before = stack.grpc_upstream.requests.lock().unwrap().len();
        scope.spawn(|| call(stack, row, key, "occupy"));
        tenon_testkit::wait_for("the upstream gets the call", || {
            stack.grpc_upstream.requests.lock().unwrap()[before..].iter().any(is_occupying(row))
        });
        std::thread::sleep(Duration::from_millis(10));
        call(stack, row, key, "good")
    })
}

fn is_occupying(row: &Row) -> impl Fn(&GrpcRequest) -> bool {
    let path = row.path;
    move |request| request.path == path && request.message.windows(7).any(|part| part == b"occupy.")
}
