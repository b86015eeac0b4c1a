//! A key that ends while its call or session runs: told as the door tells it, at once, and recorded once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::sessions::{self, ended};
use support::{BODY, CHAT, House, STREAM_BODY, TENANT, frame};
use tenon_contract::Outcome;
use tenon_testkit::{Answer, Client, Step, TestKey, sse_head, wait_for};

/// A head, and the beginning of its body.
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n{\"choices\":";

/// Keeps the only reactor busy for a while: so many numbers are read one by one.
fn long_body() -> String {
    BODY.replacen('{', &format!("{{\"pad\":[{}1],", "1,".repeat(6 << 20)), 1)
}

/// The gateway finds two things at once when it looks: the endpoint's answer, and that the key is revoked.
fn answer_and_end_at_once(house: &House, id: &str, body: &str, steps: fn() -> Vec<Step>) -> Answer {
    let key = TestKey::new(id, TENANT);
    house.put_key(&key);
    let go = Arc::new(AtomicBool::new(false));
    let gone = go.clone();
    house.upstream.say(move |_| {
        wait_for("the word", || gone.load(Ordering::SeqCst));
        steps()
    });
    let before = house.upstream.count();
    let mut client = Client::post(house.gateway.address, CHAT, &[("x-api-key", &key.text)], body);
    wait_for("the endpoint is asked", || house.upstream.count() > before);
    let _busy = house.open(&long_body());
    std::thread::sleep(Duration::from_millis(20));
    house.control.revoke(id);
    std::thread::sleep(Duration::from_millis(30));
    go.store(true, Ordering::SeqCst);
    let mut answer = client.try_head().expect("an answer, not a closed connection");
    client.read_body(&mut answer);
    answer
}

#[test]
fn a_key_that_is_revoked_before_anything_was_answered_is_told_so() {
    let house = House::with(|setup| setup.with("TENON_GATEWAY_THREADS", 1));
    let whole: fn() -> Vec<Step> = || vec![Step::Send(HALF.to_vec()), Step::UntilGone];
    let stream: fn() -> Vec<Step> = || vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone];
    for (id, body, steps) in [("endswhole1", BODY, whole), ("endsstream", STREAM_BODY, stream)] {
        let answer = answer_and_end_at_once(&house, id, body, steps);
        assert_eq!((answer.status, answer.code(), answer.complete), (401, "key_revoked".into(), true), "{id}");
        assert_eq!(house.usage(&answer).outcome(), Outcome::Cut);
    }
}

#[test]
fn a_key_revoked_after_the_endpoints_head_and_before_its_body_is_told_so() {
    let house = House::new();
    house.upstream.say(|_| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n";
        vec![Step::Send(head.to_vec()), Step::UntilGone]
    });
    let mut client = house.open(BODY);
    wait_for("the endpoint is asked", || house.upstream.count() == 1);
    std::thread::sleep(Duration::from_millis(50));
    house.control.revoke("keykeykey1");
    let mut answer = client.head();
    client.read_body(&mut answer);
    assert_eq!((answer.status, answer.code()), (401, "key_revoked".into()));
    assert_eq!(house.usage(&answer).outcome(), Outcome::Cut);
}

#[test]
fn a_session_of_a_revoked_key_ends_and_is_recorded_once() {
    for event in [None, Some(r#"{"type":"response.create"}"#), Some(r#"{"type":"response.create","response":{"hang":true}}"#)] {
        let house = sessions::House::new();
        let mut caller = house.open();
        if let Some(event) = event {
            caller.say(event);
            assert_eq!(caller.hear()["type"], "response.created");
        }
        house.control.revoke("keykeykey1");
        assert_eq!(ended(&mut caller), ("key_revoked".into(), 1008));
        wait_for("the endpoint is left", || house.upstream.closed.lock().unwrap()[..] == [Some(1001)]);
        assert_eq!(house.record(&caller.request_id).outcome(), Outcome::Cut);
        wait_for("all is shipped", || house.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
        assert_eq!((house.control.usage_count(), house.control.duplicates()), (1, 0));
        let bearer = format!("Bearer {}", house.key.text);
        assert_eq!(house.refused("/v1/realtime?model=m", &[("authorization", &bearer)]), (401, "key_revoked".into()));
    }
}
