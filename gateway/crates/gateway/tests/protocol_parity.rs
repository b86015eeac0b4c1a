//! Features of HTTP calls that realtime sessions and the Open Inference Protocol have too: strict metering, the request log, `explain`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::Value;
use std::time::{Duration, Instant};
use support::open_inference::{self, InferenceStack, infer};
use support::realtime::{CREATE, RealtimeStack, ended};
use support::{BODY, CHAT, endpoint, model, table};
use tenon_contract::{Limit, Protocol, Subject};
use tenon_testkit::{Gateway, Setup, WebSocketCaller, get, post, wait_for};

const SEGMENT: u64 = 64 << 10;
const RPCS: [&str; 2] = ["ModelInfer", "ModelStreamInfer"];

fn small_log(setup: Setup) -> Setup {
    setup.with("TENON_GATEWAY_WAL_SEGMENT_BYTES", SEGMENT).with("TENON_GATEWAY_WAL_BYTES_MAX", 4 * SEGMENT).with("TENON_GATEWAY_THREADS", 1)
}

/// Opens a session, gets one answer and closes it; or the refusal.
fn session(stack: &RealtimeStack) -> Result<String, (u16, String)> {
    let bearer = format!("Bearer {}", stack.key.text);
    let mut caller = WebSocketCaller::open(stack.gateway.address, "/v1/realtime?model=m", &[("authorization", &bearer)])?;
    caller.send(CREATE);
    (0..3).for_each(|_| drop(caller.receive()));
    caller.socket.close(None).unwrap();
    assert_eq!(caller.closed(), 1005, "their close comes back");
    Ok(caller.request_id)
}

#[test]
fn a_full_log_refuses_sessions_and_serves_them_again() {
    let mut stack = RealtimeStack::with(|_| {}, small_log);
    stack.control.acknowledge(false);
    let mut opened = 0;
    let refused = loop {
        match session(&stack) {
            Ok(_) => opened += 1,
            Err(refused) => break refused,
        }
        assert!(opened < 10_000, "the log never fills");
    };
    assert!(refused.0 == 503 && refused.1.contains("metering_unavailable"), "{refused:?}");
    let received = stack.upstream.opened.lock().unwrap().len();
    assert_eq!(received, opened, "no refused session reached the endpoint");
    stack.control.acknowledge(true);
    stack.control.stop();
    stack.control.resume();
    wait_for("it recovers", || session(&stack).is_ok());
    wait_for("everything is shipped", || stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    assert_eq!(stack.control.usage_count(), stack.upstream.opened.lock().unwrap().len(), "one record each");
}

/// An inference stack whose log is being filled by calls that fail quickly, until `is_full`; how many records there are.
fn filled(setting: fn(Setup) -> Setup, is_full: impl Fn(&InferenceStack, u16) -> bool) -> (InferenceStack, usize) {
    let stack = InferenceStack::with(|_| {}, setting);
    let mut here = endpoint("e1", &stack.upstream.url());
    here.protocol = Protocol::KserveGrpc as i32;
    let models = vec![model("m", "e1"), model("nowhere", "e2")];
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![here, endpoint("e2", "http://127.0.0.1:1")], models)));
    stack.control.acknowledge(false);
    let body = BODY.replace("\"m\"", "\"nowhere\"");
    let filling = (0..10_000).find(|_| is_full(&stack, post(stack.gateway.address, CHAT, &stack.key.text, &body).status));
    let records = filling.expect("the log never fills");
    (stack, records)
}

#[test]
fn a_full_log_refuses_inferences_and_serves_them_again() {
    let (mut stack, records) = filled(small_log, |_, status| status == 503);
    for rpc in RPCS {
        let refused = stack.call(rpc, &[infer("m")]);
        assert_eq!((refused.status(), refused.code(), stack.received()), (Some(14), "metering_unavailable".into(), 0));
    }
    stack.control.acknowledge(true);
    stack.control.stop();
    stack.control.resume();
    wait_for("it recovers", || stack.call("ModelStreamInfer", &[infer("m")]).status() == Some(0));
    wait_for("everything is shipped", || stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    assert_eq!(stack.control.usage_count(), records + stack.received(), "one record each");
}

fn unmetered(setup: Setup) -> Setup {
    small_log(setup).with("TENON_GATEWAY_WHEN_LOG_FULL", "serve_unmetered")
}

fn calls_unmetered(gateway: &Gateway) -> f64 {
    gateway.metric("tenon_gateway_calls_unmetered_total")
}

/// Nothing is acknowledged: from the first call that is not metered on none is.
#[test]
fn a_full_log_serves_both_unmetered_where_configured() {
    let stack = RealtimeStack::with(|_| {}, unmetered);
    stack.control.acknowledge(false);
    (0..10_000).find(|_| session(&stack).is_ok() && calls_unmetered(&stack.gateway) > 0.0).expect("the log never fills");
    let last = session(&stack).unwrap();
    assert!(stack.control.usage_of(&last).is_none(), "no record, not half of one");
    let (stack, _) = filled(unmetered, |stack, _| calls_unmetered(&stack.gateway) > 0.0);
    let before = calls_unmetered(&stack.gateway);
    let seen = RPCS.map(|rpc| stack.call(rpc, &[infer("m")]));
    assert!(seen.iter().all(|seen| seen.status() == Some(0)));
    assert_eq!(calls_unmetered(&stack.gateway), before + 2.0);
    assert!(seen.iter().all(|seen| stack.control.usage_of(&seen.request_id()).is_none()));
}

fn strict(setup: Setup) -> Setup {
    setup.with("TENON_GATEWAY_WAL_STRICT", "true").with("TENON_GATEWAY_WAL_SYNC_MS", 60_000)
}

/// With a timer of a minute, a call that waits for the disk must have requested the sync.
#[test]
fn strict_metering_syncs_both_before_their_end() {
    let begun = Instant::now();
    let stack = RealtimeStack::with(|_| {}, strict);
    let id = session(&stack).unwrap();
    assert_eq!(stack.record(&id).output_tokens, 10);
    let mut caller = stack.open();
    stack.control.revoke("keykeykey1");
    assert_eq!(ended(&mut caller), ("key_revoked".into(), 1008));
    let stack = InferenceStack::with(|_| {}, strict);
    for (rpc, output) in RPCS.into_iter().zip([7, 3]) {
        let seen = stack.call(rpc, &[infer("m")]);
        assert_eq!((seen.status(), stack.record(&seen).output_tokens), (Some(0), output));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

fn sampled(setup: Setup) -> Setup {
    let file = setup.data_dir().join("requests.jsonl").display().to_string();
    let setup = setup.with("TENON_GATEWAY_REQUEST_LOG_RATIO", 1).with("TENON_GATEWAY_REQUEST_LOG_FILE", file);
    setup.with("TENON_GATEWAY_REQUEST_LOG_BODIES", "redacted")
}

/// The lines of the request log, when there are so many; with the whole text.
fn lines(setup: &Setup, count: usize) -> (Vec<Value>, String) {
    let file = setup.data_dir().join("requests.jsonl");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_for("the lines", || read().lines().count() == count && read().ends_with('\n'));
    let text = read();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), text)
}

#[test]
fn the_request_log_has_sessions_and_inferences_without_their_text() {
    let stack = RealtimeStack::with(|_| {}, sampled);
    let mut caller = stack.open();
    caller.send(r#"{"type":"conversation.item.create","item":{"content":"a word nobody may read"}}"#);
    caller.receive();
    caller.socket.close(None).unwrap();
    let (entries, text) = lines(&stack.setup, 1);
    assert_eq!((&entries[0]["request_id"], &entries[0]["operation"]), (&caller.request_id.clone().into(), &"realtime".into()));
    assert_eq!((&entries[0]["outcome"], &entries[0]["http_status"]), (&"completed".into(), &101.into()));
    assert!(!text.contains("nobody may read") && !text.contains(&stack.key.text) && !text.contains("upstream-secret"), "{text}");
    let stack = InferenceStack::with(|_| {}, sampled);
    for rpc in RPCS {
        assert_eq!(stack.call(rpc, &[[infer("m"), open_inference::field(7, b"nobody may read")].concat()]).status(), Some(0));
    }
    let (entries, text) = lines(&stack.setup, 2);
    assert!(entries.iter().all(|line| line["operation"] == "infer" && line["outcome"] == "completed"), "{text}");
    assert!(!text.contains("nobody may read") && !text.contains(&stack.key.text) && !text.contains("upstream-secret"), "{text}");
}

fn explained(at: std::net::SocketAddr, key: &str, id: &str) -> Value {
    let request = || get(at, &format!("/v1/requests/{id}/explain"), key);
    wait_for("the call ends", || request().status == 200);
    request().json()
}

#[test]
fn sessions_are_explained() {
    let stack = RealtimeStack::new();
    let id = session(&stack).unwrap();
    let explanation = explained(stack.gateway.address, &stack.key.text, &id);
    assert_eq!(
        (&explanation["operation"], &explanation["outcome"], &explanation["http_status"]),
        (&"realtime".into(), &"completed".into(), &101.into())
    );
    assert_eq!((&explanation["attempts"][0]["endpoint_id"], &explanation["attempts"][0]["status"]), (&"e1".into(), &101.into()));
    assert_eq!((&explanation["usage"]["input_tokens"], &explanation["usage"]["source"]), (&20.into(), &"engine".into()));
    assert!(explanation["timings"]["first_token_us"].as_u64().is_some());
    let limit = Limit { limit_id: "l".into(), subject: Subject::Model as i32, subject_id: "m".into(), concurrency: 1, ..Limit::default() };
    stack.govern(vec![limit]);
    let _held = stack.open();
    let (status, body) = session(&stack).unwrap_err();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["error"]["code"]), (429, &"concurrency_limit_exceeded".into()));
    let explanation = explained(stack.gateway.address, &stack.key.text, body["error"]["request_id"].as_str().unwrap());
    assert_eq!((&explanation["outcome"], &explanation["code"]), (&"refused".into(), &"concurrency_limit_exceeded".into()));
}

#[test]
fn inferences_are_explained() {
    let stack = InferenceStack::new();
    for (rpc, output) in RPCS.into_iter().zip([7, 3]) {
        let seen = stack.call(rpc, &[infer("m")]);
        let explanation = explained(stack.gateway.address, &stack.key.text, &seen.request_id());
        assert_eq!(
            (&explanation["operation"], &explanation["outcome"], &explanation["streamed"]),
            (&"infer".into(), &"completed".into(), &(rpc == RPCS[1]).into())
        );
        assert_eq!((&explanation["attempts"][0]["status"], &explanation["usage"]["output_tokens"]), (&200.into(), &output.into()));
        let seen = stack.call(rpc, &[infer("refuse")]);
        let explanation = explained(stack.gateway.address, &stack.key.text, &seen.request_id());
        assert_eq!((&explanation["outcome"], &explanation["model"]), (&"upstream_error".into(), &"refuse".into()));
    }
}
