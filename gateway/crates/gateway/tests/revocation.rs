//! A key that ends while its call or session runs: reported at once, in the format of the route, and recorded once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::realtime::{RealtimeStack, ended};
use support::{BODY, CHAT, STREAM_BODY, Stack, TENANT, frame};
use tenon_contract::Outcome;
use tenon_testkit::{Answer, Client, Step, TestKey, sse_head, wait_for};

/// A head, and the beginning of its body.
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n{\"choices\":";

/// Keeps the only reactor busy for a while: so many numbers are read one by one.
fn long_body() -> String {
    BODY.replacen('{', &format!("{{\"pad\":[{}1],", "1,".repeat(6 << 20)), 1)
}

/// The gateway sees two events at once: the endpoint's answer and the revocation of the key.
fn answer_and_end_at_once(stack: &Stack, id: &str, body: &str, steps: fn() -> Vec<Step>) -> Answer {
    let key = TestKey::new(id, TENANT);
    stack.put_key(&key);
    let go = Arc::new(AtomicBool::new(false));
    let gone = go.clone();
    stack.upstream.respond(move |_| {
        wait_for("the test sets the flag", || gone.load(Ordering::SeqCst));
        steps()
    });
    let before = stack.upstream.count();
    let mut client = Client::post(stack.gateway.address, CHAT, &[("x-api-key", &key.text)], body);
    wait_for("the endpoint gets the call", || stack.upstream.count() > before);
    let _busy = stack.open(&long_body());
    std::thread::sleep(Duration::from_millis(20));
    stack.control.revoke(id);
    std::thread::sleep(Duration::from_millis(30));
    go.store(true, Ordering::SeqCst);
    let mut answer = client.try_head().expect("an answer, not a closed connection");
    client.read_body(&mut answer);
    answer
}

#[test]
fn a_key_that_is_revoked_before_the_answer_begins_is_401() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_THREADS", 1));
    let whole: fn() -> Vec<Step> = || vec![Step::Send(HALF.to_vec()), Step::UntilGone];
    let stream: fn() -> Vec<Step> = || vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone];
    for (id, body, steps) in [("endswhole1", BODY, whole), ("endsstream", STREAM_BODY, stream)] {
        let answer = answer_and_end_at_once(&stack, id, body, steps);
        assert_eq!((answer.status, answer.code(), answer.complete), (401, "key_revoked".into(), true), "{id}");
        assert_eq!(stack.usage(&answer).outcome(), Outcome::Cut);
    }
}

#[test]
fn a_key_revoked_after_the_endpoints_head_and_before_its_body_is_401() {
    let stack = Stack::new();
    stack.upstream.respond(|_| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n";
        vec![Step::Send(head.to_vec()), Step::UntilGone]
    });
    let mut client = stack.open(BODY);
    wait_for("the endpoint gets the call", || stack.upstream.count() == 1);
    std::thread::sleep(Duration::from_millis(50));
    stack.control.revoke("keykeykey1");
    let mut answer = client.head();
    client.read_body(&mut answer);
    assert_eq!((answer.status, answer.code()), (401, "key_revoked".into()));
    assert_eq!(stack.usage(&answer).outcome(), Outcome::Cut);
}

#[test]
fn a_session_of_a_revoked_key_ends_and_is_recorded_once() {
    for event in [None, Some(r#"{"type":"response.create"}"#), Some(r#"{"type":"response.create","response":{"hang":true}}"#)] {
        let stack = RealtimeStack::new();
        let mut caller = stack.open();
        if let Some(event) = event {
            caller.send(event);
            assert_eq!(caller.receive()["type"], "response.created");
        }
        stack.control.revoke("keykeykey1");
        assert_eq!(ended(&mut caller), ("key_revoked".into(), 1008));
        wait_for("the endpoint gets the close", || stack.upstream.closed.lock().unwrap()[..] == [Some(1001)]);
        assert_eq!(stack.record(&caller.request_id).outcome(), Outcome::Cut);
        wait_for("all is shipped", || stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
        assert_eq!((stack.control.usage_count(), stack.control.duplicates()), (1, 0));
        let bearer = format!("Bearer {}", stack.key.text);
        assert_eq!(stack.refused("/v1/realtime?model=m", &[("authorization", &bearer)]), (401, "key_revoked".into()));
    }
}
