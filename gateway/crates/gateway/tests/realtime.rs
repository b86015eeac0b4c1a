//! Realtime sessions: opened, relayed, metered and ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;
use support::TENANT;
use support::realtime::{CREATE, RealtimeStack, ended};
use tenon_contract::{Operation, Outcome, UsageSource};
use tenon_testkit::{TestKey, WebSocketCaller, wait_for};
use tungstenite::Message;

const UPDATE: &str = r#"{"type":"session.update","session":{"model":"m","audio":{"input":{"transcription":{"model":"w"}}}}}"#;

#[test]
fn a_session_is_relayed_and_metered_with_the_sum_of_its_answers() {
    let stack = RealtimeStack::new();
    let mut caller = stack.open();
    caller.send(UPDATE);
    let echoed = caller.receive()["text"].as_str().unwrap().to_owned();
    assert_eq!(echoed, UPDATE.replace("\"m\"", "\"gpt-realtime\""), "renamed in place, nothing else touched");
    for _ in 0..2 {
        caller.send(CREATE);
        let kinds: Vec<_> = (0..3).map(|_| caller.receive()["type"].as_str().unwrap().to_owned()).collect();
        assert_eq!(kinds, ["response.created", "response.output_audio.delta", "response.done"]);
    }
    caller.socket.close(Some(tungstenite::protocol::CloseFrame { code: 1000.into(), reason: "bye".into() })).unwrap();
    assert_eq!(caller.closed(), 1000);
    wait_for("the endpoint gets the close", || *stack.upstream.closed.lock().unwrap() == [Some(1000)]);
    let record = stack.record(&caller.request_id);
    assert_eq!((record.operation(), record.outcome(), record.usage_source()), (Operation::Realtime, Outcome::Completed, UsageSource::Engine));
    assert_eq!((record.input_tokens, record.output_tokens, record.audio_tokens, record.cache_read_tokens), (40, 20, 46, 8));
    assert_eq!((record.http_status, record.upstream_model.as_str(), record.streamed), (101, "gpt-realtime", true));
    assert!(record.first_token_us > 0);
    let (target, headers) = stack.upstream.opened.lock().unwrap()[0].clone();
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    assert_eq!(target, "/v1/realtime?model=gpt-realtime");
    assert_eq!(header("authorization").as_deref(), Some("Bearer upstream-secret"));
    assert!(!format!("{headers:?}").contains(&stack.key.text), "the caller's key goes no further");
}

#[test]
fn a_browsers_key_is_not_answered() {
    let stack = RealtimeStack::new();
    let protocols = format!("realtime, openai-insecure-api-key.{}, openai-beta.realtime-v1", stack.key.text);
    let caller = WebSocketCaller::open(stack.gateway.address, "/v1/realtime?model=m", &[("sec-websocket-protocol", &protocols)]).unwrap();
    assert_eq!(caller.protocol.as_deref(), Some("realtime"));
    let (_, headers) = stack.upstream.opened.lock().unwrap()[0].clone();
    assert!(headers.contains(&("openai-beta".into(), "realtime=v1".into())));
    assert!(!format!("{headers:?}").contains(&stack.key.text));
    let wrong = "realtime, openai-insecure-api-key.nonsense";
    assert_eq!(stack.refused("/v1/realtime?model=m", &[("sec-websocket-protocol", wrong)]), (401, "invalid_api_key".into()));
}

#[test]
fn what_may_not_open_a_session_is_refused_before_its_upgrade() {
    let stack = RealtimeStack::new();
    let bearer = format!("Bearer {}", stack.key.text);
    let key = [("authorization", bearer.as_str())];
    let cases = [
        ("/v1/realtime?model=m", &[][..], (401, "missing_api_key")),
        ("/v1/realtime", &key[..], (400, "missing_parameter")),
        ("/v1/realtime?model=m&model=other", &key[..], (400, "duplicate_key")),
        ("/v1/realtime?model=m&x=y", &key[..], (400, "unknown_parameter")),
        ("/v1/realtime?model=nosuch", &key[..], (404, "model_not_found")),
    ];
    for (target, headers, (status, code)) in cases {
        assert_eq!(stack.refused(target, headers), (status, code.into()), "{target}");
    }
    let plain = tenon_testkit::get(stack.gateway.address, "/v1/realtime?model=m", &stack.key.text);
    assert_eq!((plain.status, plain.code()), (426, "upgrade_required".into()));
    let narrow = TestKey::new("narrowkey1", TENANT).with(|record| record.allowed_operations = vec!["chat".into()]);
    stack.gateway.wait_revision(stack.control.put_key(narrow.record.clone()));
    let narrow = format!("Bearer {}", narrow.text);
    assert_eq!(stack.refused("/v1/realtime?model=m", &[("authorization", &narrow)]).0, 403);
    assert!(stack.upstream.opened.lock().unwrap().is_empty(), "none of them reached the endpoint");
}

#[test]
fn another_model_is_not_let_in_by_an_event() {
    let stack = RealtimeStack::new();
    let only = TestKey::new("onlymonly1", TENANT).with(|record| record.allowed_models = vec!["m".into()]);
    stack.gateway.wait_revision(stack.control.put_key(only.record.clone()));
    let mut caller = WebSocketCaller::open(stack.gateway.address, "/v1/realtime?model=m", &[("x-api-key", &only.text)]).unwrap();
    let mut refused = |event: &str| {
        caller.send(event);
        let answer = caller.receive();
        assert_eq!(answer["type"], "error");
        answer["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(r#"{"type":"session.update","session":{"model":"other"}}"#), "model_fixed");
    assert_eq!(refused(r#"{"type":"session.update","session":{"model":"m","model":"other"}}"#), "duplicate_key");
    assert_eq!(refused(r#"{"type":"session.update","session":{"mod\u0065l":"other"}}"#), "escaped_key");
    assert_eq!(refused(UPDATE), "model_not_allowed");
    assert_eq!(refused("not json"), "invalid_json");
    caller.socket.send(Message::binary(br#"{"type":"response.create"}"#.to_vec())).unwrap();
    assert_eq!(caller.receive()["error"]["code"], "invalid_json");
    caller.send(CREATE);
    assert_eq!(caller.receive()["type"], "response.created", "the session goes on");
    assert_eq!(stack.upstream.received.lock().unwrap().len(), 1);
}

#[test]
fn a_revoked_key_ends_its_sessions() {
    let stack = RealtimeStack::new();
    let mut caller = stack.open();
    caller.send(r#"{"type":"response.create","response":{"hang":true}}"#);
    assert_eq!(caller.receive()["type"], "response.created");
    assert_eq!(caller.receive()["type"], "response.output_audio.delta");
    stack.control.revoke("keykeykey1");
    assert_eq!(ended(&mut caller), ("key_revoked".into(), 1008));
    wait_for("the endpoint is left", || !stack.upstream.closed.lock().unwrap().is_empty());
    let record = stack.record(&caller.request_id);
    assert_eq!((record.outcome(), record.usage_source(), record.output_tokens), (Outcome::Cut, UsageSource::Estimated, 1));
}

#[test]
fn ends_by_the_endpoint_and_by_the_network_are_distinguished() {
    let stack = RealtimeStack::new();
    let mut caller = stack.open();
    caller.send(r#"{"type":"close","code":1000}"#);
    assert_eq!(caller.closed(), 1000);
    assert_eq!(stack.record(&caller.request_id).outcome(), Outcome::Completed);
    let mut caller = stack.open();
    caller.send(r#"{"type":"close","code":1013}"#);
    assert_eq!(caller.closed(), 1013, "close codes are passed on");
    assert_eq!(stack.record(&caller.request_id).outcome(), Outcome::UpstreamError);
    let mut caller = stack.open();
    caller.send(r#"{"type":"cut"}"#);
    assert_eq!(ended(&mut caller), ("upstream_cut".into(), 1011));
    assert_eq!(stack.record(&caller.request_id).outcome(), Outcome::Cut);
    let caller = stack.open();
    let id = caller.request_id.clone();
    drop(caller);
    assert_eq!(stack.record(&id).outcome(), Outcome::ClientGone);
}

#[test]
fn silence_is_a_timeout_and_a_quiet_session_is_not() {
    let stack = RealtimeStack::with(|endpoint| endpoint.idle_timeout_ms = 300, |setup| setup);
    let mut caller = stack.open();
    std::thread::sleep(Duration::from_millis(900));
    caller.send(CREATE);
    for kind in ["response.created", "response.output_audio.delta", "response.done"] {
        assert_eq!(caller.receive()["type"], kind, "both sides were silent for longer than the idle time, but connected");
    }
    caller.send(r#"{"type":"mute"}"#);
    assert_eq!(ended(&mut caller), ("upstream_idle_timeout".into(), 1001));
    assert_eq!(stack.record(&caller.request_id).outcome(), Outcome::Timeout);
}

#[test]
fn too_large_a_message_ends_the_session() {
    let stack = RealtimeStack::with(|_| {}, |setup| setup.with("TENON_GATEWAY_BODY_BYTES_MAX", 10_000));
    let mut caller = stack.open();
    caller.send(&format!(r#"{{"type":"x","pad":"{}"}}"#, "a".repeat(20_000)));
    assert_eq!(ended(&mut caller), ("request_too_large".into(), 1009));
}

#[test]
fn a_stop_waits_for_the_answer_that_runs_and_then_says_so() {
    let mut stack = RealtimeStack::new();
    let mut caller = stack.open();
    caller.send(CREATE);
    (0..3).for_each(|_| drop(caller.receive()));
    stack.gateway.terminate();
    assert_eq!(ended(&mut caller), ("gateway_stopping".into(), 1001));
    assert!(stack.gateway.wait_end().success());
    assert_eq!(stack.record(&caller.request_id).output_tokens, 10);
}

#[test]
fn a_killed_gateway_leaves_the_session_unknown() {
    let mut stack = RealtimeStack::new();
    let mut caller = stack.open();
    caller.send(CREATE);
    (0..3).for_each(|_| drop(caller.receive()));
    stack.gateway.kill();
    assert_eq!(caller.closed(), 1006);
    stack.gateway = stack.setup.start();
    assert_eq!(stack.record(&caller.request_id).outcome(), Outcome::Unknown);
}
