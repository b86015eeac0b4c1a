//! The doors of the Open Inference Protocol over gRPC, in the same table: how they are called, and what the others' answers are in its words.
//! What belongs to gRPC alone (messages, streams, deadlines, leaving) is in tests/kserve.rs.

use crate::rows::Row;
use crate::world::{Seen, World};
use std::time::Duration;
use tenon_testkit::{GrpcAnswer, GrpcAsked, GrpcCaller, GrpcSeen, GrpcStep};

/// A call that holds its place ends by itself.
pub const OCCUPY_MS: u32 = 2_000;

/// Policies that are the same at every door; the others are about bodies, heads and bytes of HTTP/1.
const POLICIES: [&str; 23] = [
    "all is well",
    "no key",
    "not one of our keys",
    "unknown key",
    "right key id, wrong secret",
    "revoked key",
    "expired key",
    "a token of no issuer we know",
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

/// gRPC's names of the statuses that refusals have.
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

/// What is expected elsewhere, as a gRPC caller is told it.
pub fn expected(policy: &str, row: &Row, elsewhere: Option<String>) -> Option<String> {
    let elsewhere = elsewhere.filter(|_| POLICIES.contains(&policy))?;
    if row.short == "live" {
        // Whoever can connect may know that it lives.
        return Some("OK · no record · upstream not asked".into());
    }
    let (told, rest) = elsewhere.split_once(" · ")?;
    let (status, code) = told.split_once(' ').unwrap_or((told, ""));
    let (_, _, name) = STATUSES.iter().find(|(http, ..)| *http == status)?;
    // A stream is no other status here.
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
pub fn script(asked: &GrpcAsked) -> GrpcAnswer {
    if asked.message.windows(7).any(|part| part == b"occupy.") {
        return vec![GrpcStep::Stall];
    }
    match asked.path.rsplit('/').next().unwrap_or_default() {
        "ModelStreamInfer" => vec![GrpcStep::Say(field(2, &answered()))],
        "ModelInfer" => vec![GrpcStep::Say(answered()), GrpcStep::End(0)],
        _ => vec![GrpcStep::Say(Vec::new()), GrpcStep::End(0)],
    }
}

/// Calls the row's method with this key for this fault's model.
pub fn call(world: &World, row: &Row, key: &str, fault: &str) -> Seen {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    let headers = if key.is_empty() { &[][..] } else { &headers[..] };
    let method = row.path.rsplit('/').next().unwrap_or_default();
    let message = message(&format!("{fault}.{}", row.protocol_name()));
    see(&GrpcCaller::connect(world.grpc).call(method, headers, &[message], None))
}

fn see(seen: &GrpcSeen) -> Seen {
    let name = seen.status().and_then(|status| STATUSES.iter().find(|(_, number, _)| *number == status));
    let told = format!("{} {}", name.map_or("ANOTHER STATUS", |(.., name)| name), seen.code());
    Seen { id: seen.request_id(), told: told.trim_end().to_owned() }
}

/// One call runs while another is tried.
pub fn beside_a_running_call(world: &World, row: &Row, key: &str) -> Seen {
    std::thread::scope(|scope| {
        let before = world.grpc_upstream.asked.lock().unwrap().len();
        scope.spawn(|| call(world, row, key, "occupy"));
        tenon_testkit::wait_for("the upstream is asked", || world.grpc_upstream.asked.lock().unwrap()[before..].iter().any(is_occupying(row)));
        std::thread::sleep(Duration::from_millis(10));
        call(world, row, key, "good")
    })
}

fn is_occupying(row: &Row) -> impl Fn(&GrpcAsked) -> bool {
    let path = row.path;
    move |asked| asked.path == path && asked.message.windows(7).any(|part| part == b"occupy.")
}
