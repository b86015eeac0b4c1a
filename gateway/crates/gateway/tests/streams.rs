//! Streams: untouched, observed, and never looking complete when they are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{BODY, DONE, STREAM_BODY, Stack, USAGE_FRAME, frame, model, table, whole_stream};
use tenon_contract::{Outcome, UsageSource};
use tenon_testkit::{Step, json_answer, sse_head, wait_for};

fn text(parts: &[&[u8]]) -> String {
    String::from_utf8(parts.concat()).unwrap()
}

#[test]
fn usage_is_asked_for_and_taken_out_when_the_caller_did_not_ask() {
    let stack = Stack::new();
    stack.upstream.respond(|_| whole_stream());
    let answer = stack.chat(STREAM_BODY);
    assert_eq!(stack.upstream.last().json()["stream_options"]["include_usage"], true);
    assert_eq!(answer.text(), text(&[&frame("a"), &frame("b"), DONE]));
    assert!(answer.complete && answer.header("content-type") == Some("text/event-stream"));
    let usage = stack.usage(&answer);
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.usage_source(), usage.outcome()), (9, 2, UsageSource::Engine, Outcome::Completed));
    assert!(usage.streamed);
}

#[test]
fn usage_stays_when_the_caller_asked() {
    let stack = Stack::new();
    stack.upstream.respond(|_| whole_stream());
    let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
    let answer = stack.chat(body);
    assert_eq!(String::from_utf8(stack.upstream.last().body).unwrap(), body, "nothing to splice");
    assert_eq!(answer.text(), text(&[&frame("a"), &frame("b"), USAGE_FRAME, DONE]));
    assert_eq!(stack.usage(&answer).output_tokens, 2);
}

#[test]
fn frames_arrive_as_they_come_and_split_ones_are_put_together() {
    let (stack, seen) = (Stack::new(), Arc::new(AtomicBool::new(false)));
    let word = seen.clone();
    stack.upstream.respond(move |_| {
        let whole = [USAGE_FRAME, DONE].concat();
        // The first frame does not wait for the second: that comes when the first was seen.
        let mut steps = vec![Step::Send(sse_head()), Step::Send(frame("first")), Step::Until(word.clone())];
        for piece in whole.chunks(7) {
            steps.extend([Step::Send(piece.to_vec()), Step::Wait(Duration::from_millis(2))]);
        }
        steps.push(Step::Close);
        steps
    });
    let mut client = stack.open(STREAM_BODY);
    let mut answer = client.head();
    assert_eq!(client.chunk().unwrap().unwrap(), frame("first"));
    seen.store(true, Ordering::SeqCst);
    client.read_body(&mut answer);
    assert_eq!((answer.text(), answer.complete), (text(&[DONE]), true));
    assert_eq!(stack.usage(&answer).input_tokens, 9);
}

fn ends_with_error(answer: &tenon_testkit::Answer, code: &str) {
    let last = answer.text();
    let error = last.trim_end().rsplit("data: ").next().unwrap().to_owned();
    let error: serde_json::Value = serde_json::from_str(&error).expect("an error frame");
    assert_eq!((error["error"]["code"].as_str(), error["error"]["request_id"].as_str()), (Some(code), Some(&*answer.request_id())));
    assert!(!last.contains("[DONE]"));
}

#[test]
fn a_stream_that_breaks_off_ends_with_an_error_and_is_estimated() {
    let stack = Stack::new();
    let chunked = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let broken = [chunked, chunk(&frame("a")), chunk(&frame("b")), chunk(b"data: {\"half")].concat();
    stack.upstream.respond(move |_| vec![Step::Send(broken.clone()), Step::Wait(Duration::from_millis(20)), Step::Close]);
    let answer = stack.chat(STREAM_BODY);
    ends_with_error(&answer, "upstream_cut");
    let usage = stack.usage(&answer);
    assert_eq!((usage.outcome(), usage.usage_source(), usage.output_tokens), (Outcome::Cut, UsageSource::Estimated, 2));

    // Closed in good order, but without the dialect's end: an engine that died.
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::Close]);
    let answer = stack.chat(STREAM_BODY);
    ends_with_error(&answer, "upstream_cut");
    assert_eq!(stack.usage(&answer).outcome(), Outcome::Cut);
}

#[test]
fn a_whole_answer_that_breaks_off_does_not_look_complete() {
    let stack = Stack::new();
    stack.upstream.respond(|_| {
        vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"cho".to_vec()), Step::Close]
    });
    let answer = stack.chat(BODY);
    assert!(!answer.complete);
    assert_eq!(stack.usage(&answer).outcome(), Outcome::Cut);
}

#[test]
fn a_caller_who_leaves_cancels_the_upstream_and_is_metered() {
    let stack = Stack::new();
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::Send(frame("b")), Step::UntilGone]);
    let mut client = stack.open(STREAM_BODY);
    let answer = client.head();
    let mut seen = Vec::new();
    while seen.len() < frame("a").len() * 2 {
        seen.extend(client.chunk().unwrap().unwrap());
    }
    drop(client);
    wait_for("the cancel", || stack.upstream.cancelled.load(Ordering::SeqCst) == 1);
    let usage = stack.usage(&answer);
    assert_eq!(
        (usage.outcome(), usage.usage_source(), usage.output_tokens, usage.http_status),
        (Outcome::ClientGone, UsageSource::Estimated, 2, 200)
    );
    // Before the answer has begun.
    stack.upstream.respond(|_| vec![Step::UntilGone]);
    let client = stack.open(BODY);
    wait_for("the call", || stack.upstream.count() == 2);
    drop(client);
    wait_for("the cancel", || stack.upstream.cancelled.load(Ordering::SeqCst) == 2);
    wait_for("both records", || stack.control.usage_count() == 2);
    assert!(stack.control.usage().iter().all(|r| r.outcome() == Outcome::ClientGone));
    wait_for("nothing runs", || stack.gateway.metric("tenon_gateway_calls_running") == 0.0);
}

#[test]
fn the_record_stands_before_done_is_given_away() {
    let stack = Stack::new();
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send([&frame("a"), USAGE_FRAME, DONE].concat()), Step::UntilGone]);
    let mut client = stack.open(STREAM_BODY);
    let answer = client.head();
    let mut seen = Vec::new();
    while !seen.ends_with(DONE) {
        seen.extend(client.chunk().unwrap().unwrap());
    }
    let mut gateway = stack.gateway;
    gateway.kill();
    let _again = stack.setup.start();
    wait_for("the record", || stack.control.usage_of(&answer.request_id()).is_some());
    assert_eq!(stack.control.usage_of(&answer.request_id()).unwrap().outcome(), Outcome::Completed);
}

#[test]
fn a_running_stream_ends_when_its_key_is_revoked() {
    let stack = Stack::new();
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone]);
    let mut client = stack.open(STREAM_BODY);
    let mut answer = client.head();
    assert!(client.chunk().unwrap().is_some());
    stack.control.revoke("keykeykey1");
    client.read_body(&mut answer);
    ends_with_error(&answer, "key_revoked");
    assert_eq!(stack.usage(&answer).outcome(), Outcome::Cut);
    assert_eq!(stack.upstream.cancelled.load(Ordering::SeqCst), 1);
    assert_eq!(stack.chat(BODY).code(), "key_revoked");
}

#[test]
fn a_stream_that_stands_still_or_takes_too_long_is_ended() {
    let stack = Stack::new();
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone]);
    let mut e = support::endpoint("e1", &stack.upstream.url());
    e.idle_timeout_ms = 60;
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![e.clone()], vec![model("m", "e1")])));
    let answer = stack.chat(STREAM_BODY);
    ends_with_error(&answer, "upstream_idle_timeout");
    assert_eq!(stack.usage(&answer).outcome(), Outcome::Timeout);
    (e.idle_timeout_ms, e.first_token_timeout_ms) = (0, 60);
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::UntilGone]);
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![e.clone()], vec![model("m", "e1")])));
    ends_with_error(&stack.chat(STREAM_BODY), "upstream_first_token_timeout");
    (e.first_token_timeout_ms, e.total_timeout_ms) = (0, 150);
    stack.upstream.respond(|_| {
        let drip = (0..50).flat_map(|_| [Step::Send(frame("a")), Step::Wait(Duration::from_millis(20))]);
        [Step::Send(sse_head())].into_iter().chain(drip).collect()
    });
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![e], vec![model("m", "e1")])));
    ends_with_error(&stack.chat(STREAM_BODY), "upstream_total_timeout");
}

#[test]
fn a_stream_that_was_asked_for_may_be_answered_whole() {
    let stack = Stack::new();
    stack.upstream.respond(|_| vec![Step::Send(json_answer(200, support::ANSWER))]);
    let answer = stack.chat(STREAM_BODY);
    assert_eq!((answer.text().as_str(), stack.usage(&answer).input_tokens), (support::ANSWER, 11));
}

#[test]
fn a_long_answer_in_many_chunks_is_still_metered() {
    let stack = Stack::new();
    let filler = "x".repeat(200_000);
    let body = format!(r#"{{"usage":{{"prompt_tokens":3,"completion_tokens":5}},"choices":[{{"message":{{"content":"{filler}"}}}}]}}"#);
    let chunks: Vec<u8> = body.as_bytes().chunks(9000).flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat()).collect();
    let raw = [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &chunks, b"0\r\n\r\n"].concat();
    stack.upstream.respond(move |_| vec![Step::Send(raw.clone())]);
    let answer = stack.chat(BODY);
    assert!(answer.complete && answer.text() == body);
    assert_eq!(stack.usage(&answer).output_tokens, 5);
}
