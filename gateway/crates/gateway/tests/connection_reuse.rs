//! Connections to an endpoint that are reused, and endpoints that close them without notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{ANSWER, BODY, Stack};
use tenon_testkit::{Step, json_answer, wait_for};

const STALE: &str = "tenon_gateway_upstream_failures_total{at=\"stale_connection\"}";

fn answer() -> Step {
    Step::Send(json_answer(200, ANSWER))
}

fn stack() -> Stack {
    Stack::with(|setup| setup.with("TENON_GATEWAY_THREADS", 1))
}

#[test]
fn a_request_that_crossed_the_close_of_its_connection_goes_again_on_a_new_one() {
    let stack = stack();
    let calls = AtomicUsize::new(0);
    stack.upstream.respond(move |_| if calls.fetch_add(1, Ordering::SeqCst) == 1 { vec![Step::Close] } else { vec![answer()] });
    assert_eq!([stack.chat(BODY).status, stack.chat(BODY).status], [200, 200]);
    assert_eq!((stack.upstream.count(), stack.upstream.connections.load(Ordering::SeqCst)), (3, 2));
    let bodies: Vec<_> = stack.upstream.requests.lock().unwrap().iter().map(|request| request.body.clone()).collect();
    assert_eq!(bodies[1], bodies[2], "the same once more");
    assert_eq!(stack.gateway.metric(STALE), 1.0);
    wait_for("a record each", || stack.control.usage_count() == 2);
}

#[test]
fn an_endpoint_that_closes_is_tried_once_on_a_reused_and_once_on_a_new_connection() {
    let stack = stack();
    assert_eq!(stack.chat(BODY).status, 200);
    stack.upstream.respond(|_| vec![Step::Close]);
    let failed = stack.chat(BODY);
    assert_eq!((failed.status, failed.code().as_str(), stack.upstream.count()), (502, "upstream_error", 3), "the kept one, and a new one");
    assert_eq!((stack.chat(BODY).status, stack.upstream.count()), (502, 4), "a new one only");
}

#[test]
fn a_request_that_may_have_been_processed_is_not_sent_again() {
    let stack = stack();
    assert_eq!(stack.chat(BODY).status, 200);
    stack.upstream.respond(|_| vec![Step::Wait(Duration::from_millis(900)), Step::Close]);
    assert_eq!((stack.chat(BODY).status, stack.upstream.count()), (502, 2));
}
