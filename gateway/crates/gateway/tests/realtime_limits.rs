//! Limits within realtime sessions: each answer counts, what does not fit is refused and the session stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::Value;
use support::realtime::{CREATE, RealtimeStack};
use support::{TENANT, limit};
use tenon_contract::{Limit, Subject};
use tenon_testkit::{WebSocketCaller, wait_for};

fn of_key(stack: &RealtimeStack, requests: u64, tokens: u64, concurrency: u32) -> Vec<Limit> {
    vec![limit("l", Subject::Key, &stack.key.record.key_id, requests, tokens, concurrency)]
}

/// Asks for an answer and gives what came of it: "answered", or the error.
fn exchange(caller: &mut WebSocketCaller, event: &str) -> Value {
    caller.send(event);
    let first = caller.receive();
    if first["type"] == "error" {
        return first;
    }
    rest_of_answer(caller, &first)
}

fn rest_of_answer(caller: &mut WebSocketCaller, first: &Value) -> Value {
    assert_eq!(first["type"], "response.created");
    assert_eq!(caller.receive()["type"], "response.output_audio.delta");
    assert_eq!(caller.receive()["type"], "response.done");
    "answered".into()
}

/// The endpoint answers on its own.
fn voice(caller: &mut WebSocketCaller) {
    caller.send(r#"{"type":"speak"}"#);
    let first = caller.receive();
    rest_of_answer(caller, &first);
}

fn capped(tokens: u64) -> String {
    format!(r#"{{"event_id":"mine","type":"response.create","response":{{"max_output_tokens":{tokens}}}}}"#)
}

fn received_creates(stack: &RealtimeStack) -> usize {
    stack.upstream.received.lock().unwrap().iter().filter(|text| text.contains("response.create")).count()
}

#[test]
fn each_answer_is_a_request_and_one_too_many_is_refused_within_the_session() {
    let stack = RealtimeStack::new();
    stack.govern(of_key(&stack, 3, 0, 0));
    let mut caller = stack.open();
    for _ in 0..3 {
        assert_eq!(exchange(&mut caller, CREATE), "answered", "the opening counts as the first of them");
    }
    let refused = exchange(&mut caller, &capped(10));
    let error = &refused["error"];
    assert_eq!((&error["code"], &error["type"], &error["event_id"]), (&"rate_limit_exceeded".into(), &"rate_limit_error".into(), &"mine".into()));
    assert!(error["message"].as_str().unwrap().contains("3 requests a minute of this API key"), "{error}");
    let wait = error["retry_after_seconds"].as_u64().unwrap();
    assert!((55..=62).contains(&wait), "{wait}");
    assert!(refused["event_id"].as_str().unwrap().starts_with("event_"));
    caller.send(r#"{"type":"session.update","session":{"voice":"x"}}"#);
    assert_eq!(caller.receive()["type"], "echo", "the session stays open");
    assert_eq!(received_creates(&stack), 3, "nothing went upstream");
    assert_eq!(stack.gateway.metric("tenon_gateway_refusals_total{code=\"requests_limit_exceeded\"}"), 1.0);
    let bearer = format!("Bearer {}", stack.key.text);
    assert_eq!(stack.refused("/v1/realtime?model=m", &[("authorization", &bearer)]), (429, "requests_limit_exceeded".into()));
    caller.socket.close(None).unwrap();
    assert_eq!(stack.record(&caller.request_id).input_tokens, 60);
    let explain = || tenon_testkit::get(stack.gateway.address, &format!("/v1/requests/{}/explain", caller.request_id), &stack.key.text);
    wait_for("the session is explained", || explain().status == 200);
    assert_eq!((&explain().json()["limit"]["kind"], &explain().json()["outcome"]), (&"requests_per_minute".into(), &"completed".into()));
}

#[test]
fn tokens_are_taken_for_each_answer_and_corrected_by_the_endpoints_numbers() {
    let stack = RealtimeStack::new();
    stack.govern(vec![limit("l", Subject::Model, "m", 0, 1000, 0)]);
    let mut caller = stack.open();
    for _ in 0..3 {
        assert_eq!(exchange(&mut caller, &capped(400)), "answered", "30 of each stay");
    }
    let refused = exchange(&mut caller, &capped(900));
    assert_eq!(refused["error"]["code"], "rate_limit_exceeded");
    assert!(refused["error"]["message"].as_str().unwrap().contains("910 are left at this gateway"), "{refused}");
    assert_eq!(exchange(&mut caller, &capped(890)), "answered", "with the 20 that the last answer took as its input it fits exactly");
    assert_eq!(refused["error"]["param"], Value::Null);
}

#[test]
fn what_the_endpoint_begins_by_itself_is_counted_when_it_is_over() {
    let stack = RealtimeStack::new();
    stack.govern(of_key(&stack, 4, 200, 0));
    let mut caller = stack.open();
    (0..3).for_each(|_| voice(&mut caller));
    assert!(exchange(&mut caller, &capped(150))["error"]["message"].as_str().unwrap().contains("110 are left at this gateway"));
    caller.send(r#"{"type":"dictate"}"#);
    assert_eq!(caller.receive()["type"], "conversation.item.input_audio_transcription.completed");
    assert!(exchange(&mut caller, &capped(150))["error"]["message"].as_str().unwrap().contains("65 are left at this gateway"));
    voice(&mut caller);
    let refused = exchange(&mut caller, &capped(1));
    assert!(refused["error"]["message"].as_str().unwrap().contains("4 requests a minute"), "{refused}");
    voice(&mut caller);
    voice(&mut caller);
}

#[test]
fn an_answer_that_the_endpoint_will_not_begin_gives_its_tokens_back() {
    let stack = RealtimeStack::new();
    stack.govern(of_key(&stack, 0, 1000, 0));
    let mut caller = stack.open();
    for _ in 0..2 {
        let refused = exchange(&mut caller, r#"{"type":"response.create","response":{"max_output_tokens":900,"busy":true}}"#);
        assert_eq!(refused["error"]["message"], "theirs", "not ours: the tokens of the one before are back");
    }
    // One that hangs keeps what it took.
    caller.send(r#"{"type":"response.create","response":{"max_output_tokens":900,"hang":true}}"#);
    assert_eq!(
        (caller.receive()["type"].clone(), caller.receive()["type"].clone()),
        ("response.created".into(), "response.output_audio.delta".into())
    );
    assert_eq!(exchange(&mut caller, &capped(900))["error"]["code"], "rate_limit_exceeded");
}

#[test]
fn a_limit_that_comes_while_a_session_is_open_counts_its_next_answers() {
    let stack = RealtimeStack::new();
    let mut caller = stack.open();
    (0..3).for_each(|_| assert_eq!(exchange(&mut caller, CREATE), "answered"));
    stack.govern(of_key(&stack, 1, 0, 0));
    assert_eq!(exchange(&mut caller, CREATE), "answered");
    assert_eq!(exchange(&mut caller, CREATE)["error"]["code"], "rate_limit_exceeded");
    stack.govern(vec![]);
    assert_eq!(exchange(&mut caller, CREATE), "answered");
}

#[test]
fn a_session_is_one_call_at_a_time_however_much_it_says() {
    let stack = RealtimeStack::new();
    stack.govern(vec![limit("l", Subject::Tenant, TENANT, 0, 0, 1)]);
    let mut caller = stack.open();
    (0..3).for_each(|_| assert_eq!(exchange(&mut caller, CREATE), "answered"));
    let bearer = format!("Bearer {}", stack.key.text);
    let again = || WebSocketCaller::open(stack.gateway.address, "/v1/realtime?model=m", &[("authorization", &bearer)]);
    assert!(again().err().unwrap().1.contains("concurrency_limit_exceeded"));
    caller.socket.close(None).unwrap();
    wait_for("the slot is free", || again().is_ok());
}

#[test]
fn an_opening_without_answers_is_a_request() {
    let stack = RealtimeStack::new();
    stack.govern(of_key(&stack, 1, 0, 0));
    let caller = stack.open();
    let id = caller.request_id.clone();
    drop(caller);
    assert_eq!(stack.record(&id).output_tokens, 0);
    let bearer = format!("Bearer {}", stack.key.text);
    assert_eq!(stack.refused("/v1/realtime?model=m", &[("authorization", &bearer)]).0, 429);
}
