//! Every policy and every fault: the request it sends, and the expected outcome. The text of a cell is both the expectation and
//! the text of the page.

use crate::rows::{Kind, Row, Sent, head};
use crate::stack::{BODY_BYTES_MAX, Outcome, Stack, key_id, outcome};
use crate::{grpc, limits};
use tenon_testkit::TestKey;

pub struct Policy {
    pub name: &'static str,
    pub run: fn(&Stack, &Row) -> Outcome,
    /// `None`: it cannot happen at this route.
    pub expect: fn(&Row) -> Option<String>,
}

impl Policy {
    pub fn expected(&self, row: &Row) -> Option<String> {
        let expected = (self.expect)(row);
        if row.is_grpc() { grpc::expected(self.name, row, expected) } else { expected }
    }
}

const fn policy(name: &'static str, run: fn(&Stack, &Row) -> Outcome, expect: fn(&Row) -> Option<String>) -> Policy {
    Policy { name, run, expect }
}

/// Answered with `status` and `code`; nothing recorded, nothing sent to the upstream.
fn refused(summary: &str) -> Option<String> {
    Some(format!("{summary} · no record · upstream not called"))
}

fn refused_call(row: &Row, summary: &str) -> Option<String> {
    row.is_call().then(|| format!("{summary} · no record · upstream not called"))
}

fn refused_name(row: &Row, summary: &str) -> Option<String> {
    row.names_model().then(|| format!("{summary} · no record · upstream not called"))
}

fn refused_body(row: &Row, summary: &str) -> Option<String> {
    row.has_body().then(|| format!("{summary} · no record · upstream not called"))
}

fn refused_json(row: &Row, summary: &str) -> Option<String> {
    (row.kind == Kind::Json).then(|| format!("{summary} · no record · upstream not called"))
}

/// One record of this outcome, after the upstream was called once.
fn failed(row: &Row, summary: &str, outcome: &str) -> Option<String> {
    row.is_call().then(|| format!("{summary} · recorded {outcome} · upstream called"))
}

/// An answer that began and cannot go on. A complete answer that is translated has not begun for its caller yet.
fn broken(row: &Row, code: &str, outcome: &str) -> Option<String> {
    let summary = match code {
        _ if row.streamed => format!("{}, then error {code}", row.begins()),
        _ if !row.is_translated() => "200, broken off".into(),
        "upstream_idle_timeout" => format!("504 {code}"),
        "key_revoked" => format!("401 {code}"),
        _ => format!("502 {code}"),
    };
    failed(row, &summary, outcome)
}

/// A session has no first token: it may be silent as long as its peer is connected.
fn stalled(row: &Row) -> Option<String> {
    if row.has_body() { failed(row, "504 upstream_first_token_timeout", "timeout") } else { None }
}

/// A route whose engines report no tokens uses none.
fn tokens_limit(row: &Row) -> Option<String> {
    if row.usage == (0, 0) { None } else { refused_call(row, "429 tokens_limit_exceeded") }
}

/// A call without a bound is refused on a hard budget, whatever is left of it.
fn budget_gone(row: &Row) -> Option<String> {
    let unbounded = ["speech", "transcription", "image", "realtime", "infer"].contains(&row.operation);
    refused_call(row, if unbounded { "400 unbounded_input" } else { "402 budget_exhausted" })
}

fn of_good(stack: &Stack, row: &Row) -> Outcome {
    stack.call(row, &stack.key.text, "good")
}

fn good(row: &Row) -> Option<String> {
    if row.short == "explain" {
        return refused("404 unknown_request");
    }
    let (input, output) = row.usage;
    if row.is_call() { failed(row, row.begins(), &format!("completed {input}+{output}")) } else { refused("200") }
}

fn with_key(stack: &Stack, row: &Row, id: &str, change: fn(&mut tenon_contract::KeyRecord)) -> Outcome {
    let key = stack.make_key(id, change);
    stack.call(row, &key.text, "good")
}

fn fault(stack: &Stack, row: &Row, fault: &str) -> Outcome {
    stack.call(row, &stack.key.text, fault)
}

fn body(stack: &Stack, row: &Row, body: Vec<u8>) -> Outcome {
    let content_type = row.request("m").content_type;
    stack.send(row, &stack.key.text, &Sent { content_type, body })
}

fn edited(stack: &Stack, row: &Row, edit: impl Fn(String) -> String) -> Outcome {
    let good = String::from_utf8(row.request(&format!("good.{}", row.protocol_name())).body).unwrap();
    body(stack, row, edit(good).into_bytes())
}

/// Policies that do not hold yet, with the package that will implement them. The suite fails when one of them holds everywhere.
pub const PENDING: &[(&str, &str)] = &[];

/// In the order of the request pipeline.
pub const POLICIES: &[Policy] = &[
    policy("a good request", of_good, good),
    policy("no key", |w, r| w.call(r, "", "good"), |_| refused("401 missing_api_key")),
    policy("not a key of ours", |w, r| w.call(r, "sk-not-ours", "good"), |_| refused("401 invalid_api_key")),
    policy("unknown key", |w, r| w.call(r, &TestKey::new("neverknown", "x").text, "good"), |_| refused("401 invalid_api_key")),
    policy("right key id, wrong secret", |w, r| with_key(w, r, "wrongsecr1", |k| k.secret_sha256 = vec![1; 32]), |_| refused("401 invalid_api_key")),
    policy("revoked key", |w, r| with_key(w, r, "revokedre1", |k| k.revoked = true), |_| refused("401 key_revoked")),
    policy("expired key", |w, r| with_key(w, r, "expiredex1", |k| k.expires_at_unix_ms = 1000), |_| refused("401 key_expired")),
    policy("a token of an unknown issuer", |w, r| w.call(r, TOKEN, "good"), |_| refused("401 invalid_token")),
    policy(
        "key of another network",
        |w, r| with_key(w, r, "networkne1", |k| k.source_networks = vec!["192.0.2.0/24".into()]),
        |_| refused("403 network_not_allowed"),
    ),
    policy(
        "key bound to a certificate",
        |w, r| with_key(w, r, "certbound1", |k| k.certificate_sha256 = vec![7; 32]),
        |_| refused("403 certificate_required"),
    ),
    policy("operation not in the key's scope", wrong_operation, |r| refused_call(r, "403 operation_not_allowed")),
    policy("an agent's base key", |w, r| w.call(r, &w.agent().text, "good"), |_| refused("403 key_may_not_call_models")),
    policy("model unknown", |w, r| w.call(r, &w.key.text, "nosuch"), |r| refused_name(r, "404 model_not_found")),
    policy(
        "model not allowed",
        |w, r| with_key(w, r, "othermode1", |k| k.allowed_models = vec!["other".into()]),
        |r| refused_name(r, "403 model_not_allowed"),
    ),
    policy("not cleared", not_cleared, |r| refused_call(r, "403 no_cleared_endpoint")),
    policy("no endpoint serves the operation", |w, r| fault(w, r, "elsewhere"), |r| refused_call(r, "400 operation_not_served")),
    policy("no usable endpoint", |w, r| fault(w, r, "broken"), |r| refused_call(r, "503 no_usable_endpoint")),
    policy("body too large, by its content-length", too_large_announced, |r| refused_body(r, "413 request_too_large")),
    policy("body too large, in chunks", too_large_chunked, |r| refused_body(r, "413 request_too_large")),
    policy("body never arrives", never_arrives, |r| refused_body(r, "408 body_timeout")),
    policy("not JSON", |w, r| body(w, r, b"model=m".to_vec()), |r| refused_json(r, "400 invalid_json")),
    policy("a key twice", |w, r| edited(w, r, |b| b.replacen('{', r#"{"model":"other.model","#, 1)), |r| refused_json(r, "400 duplicate_key")),
    policy("an escaped key", |w, r| edited(w, r, |b| b.replacen("\"model\"", "\"mod\\u0065l\"", 1)), |r| refused_json(r, "400 escaped_key")),
    policy("absurdly deep", too_deep, |r| refused_json(r, "400 json_too_deep")),
    policy("bytes after the end", |w, r| edited(w, r, |b| b + "{}"), |r| refused_json(r, "400 invalid_json")),
    policy("limit of requests reached", limits::requests_reached, |r| refused_call(r, "429 requests_limit_exceeded")),
    policy("limit of tokens reached", limits::tokens_reached, tokens_limit),
    policy("limit of calls at a time reached", limits::calls_reached, |r| refused_call(r, "429 concurrency_limit_exceeded")),
    policy("hard budget spent", limits::budget_spent, budget_gone),
    policy("hard budget, model without a price", limits::not_priced, |r| refused_call(r, "403 model_not_priced")),
    policy(
        "endpoint: unreachable",
        |w, r| fault(w, r, "dead"),
        |r| r.is_call().then(|| "502 upstream_unreachable · recorded upstream_error · upstream not called".into()),
    ),
    policy("endpoint: 400", |w, r| fault(w, r, "400"), |r| failed(r, "400 passed on", "upstream_error")),
    policy("endpoint: 401", |w, r| fault(w, r, "401"), |r| failed(r, "502 upstream_refused_gateway", "upstream_error")),
    policy("endpoint: 429", |w, r| fault(w, r, "429"), |r| failed(r, "429 passed on", "upstream_error")),
    policy("endpoint: 500", |w, r| fault(w, r, "500"), |r| failed(r, "502 upstream_error", "upstream_error")),
    policy("endpoint: 503", |w, r| fault(w, r, "503"), |r| failed(r, "503 upstream_unavailable", "upstream_error")),
    policy("endpoint: redirects", |w, r| fault(w, r, "redirect"), |r| failed(r, "502 upstream_protocol", "upstream_error")),
    policy("endpoint: not HTTP", |w, r| fault(w, r, "not-http"), |r| failed(r, "502 upstream_error", "upstream_error")),
    policy("endpoint: encodes its answer", |w, r| fault(w, r, "encoded"), |r| failed(r, "502 upstream_protocol", "upstream_error")),
    policy("endpoint: cut in its head", |w, r| fault(w, r, "cut-head"), |r| failed(r, "502 upstream_error", "upstream_error")),
    policy("endpoint: silent", |w, r| fault(w, r, "silent"), |r| failed(r, "504 upstream_headers_timeout", "timeout")),
    policy("endpoint: too slow in all", |w, r| fault(w, r, "silent-total"), |r| failed(r, "504 upstream_total_timeout", "timeout")),
    policy("endpoint: stalls before the first byte", |w, r| fault(w, r, "stall-first"), stalled),
    policy("endpoint: stalls in its answer", |w, r| fault(w, r, "stall"), |r| broken(r, "upstream_idle_timeout", "timeout")),
    policy("endpoint: cut in its answer", |w, r| fault(w, r, "cut"), |r| broken(r, "upstream_cut", "cut")),
    policy("key revoked while it runs", revoked_running, |r| broken(r, "key_revoked", "cut")),
    policy("caller leaves", caller_leaves, |r| failed(r, "left", "client_gone")),
];

/// `{"alg":"RS256","typ":"JWT"}`, claims, and a signature by no key.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoieCJ9.c2lnbmF0dXJl";

fn wrong_operation(stack: &Stack, row: &Row) -> Outcome {
    let (id, allowed) = if row.operation == "embedding" { ("scopescop1", "chat") } else { ("scopescop2", "embedding") };
    let key = stack.make_key(id, |k| k.allowed_operations = vec![allowed.into()]);
    stack.call(row, &key.text, "good")
}

fn not_cleared(stack: &Stack, row: &Row) -> Outcome {
    let key = stack.make_key("ceilingce1", |k| k.ceiling_markings = vec!["pii".into()]);
    stack.call(row, &key.text, "uncleared")
}

fn too_large_announced(stack: &Stack, row: &Row) -> Outcome {
    stack.raw(row, head(row, &stack.key.text, &row.request("m").content_type, BODY_BYTES_MAX + 1).as_bytes())
}

fn too_large_chunked(stack: &Stack, row: &Row) -> Outcome {
    let head = head(row, &stack.key.text, &row.request("m").content_type, 0).replace("content-length: 0", "transfer-encoding: chunked");
    let big = BODY_BYTES_MAX + 1;
    stack.raw(row, &[head.as_bytes(), format!("{big:x}\r\n").as_bytes(), &vec![b' '; big], b"\r\n0\r\n\r\n"].concat())
}

fn never_arrives(stack: &Stack, row: &Row) -> Outcome {
    stack.raw(row, &[head(row, &stack.key.text, &row.request("m").content_type, 50).as_bytes(), b"{"].concat())
}

fn too_deep(stack: &Stack, row: &Row) -> Outcome {
    edited(stack, row, |good| good.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(10_000), "]".repeat(10_000)), 1))
}

fn revoked_running(stack: &Stack, row: &Row) -> Outcome {
    let id = key_id("revoke", row);
    let key = stack.make_key(&id, |_| {});
    let (mut client, _) = stack.open_running(row, &key.text, "hold");
    // A complete answer that is translated has not begun for its caller; every other answer begins with its first bytes.
    if row.streamed || !row.is_translated() {
        client.wait_begins();
    }
    stack.control.revoke(&id);
    outcome(row, &mut client)
}

fn caller_leaves(stack: &Stack, row: &Row) -> Outcome {
    let (client, id) = stack.open_running(row, &stack.key.text, "leave");
    drop(client);
    Outcome { id, summary: "left".into() }
}
