//! A full usage log: the gateway starts, reports it, ships the records and recovers; or it serves unmetered where configured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{BODY, Stack};
use tenon_testkit::wait_for;

const SEGMENT: u64 = 64 << 10;

fn small_log(setup: tenon_testkit::Setup) -> tenon_testkit::Setup {
    setup.with("TENON_GATEWAY_WAL_SEGMENT_BYTES", SEGMENT).with("TENON_GATEWAY_WAL_BYTES_MAX", 6 * SEGMENT)
}

/// Calls until one is refused for want of room; how many were answered.
fn fill(stack: &Stack) -> usize {
    let mut answered = 0;
    loop {
        let answer = stack.chat(BODY);
        if answer.status == 503 {
            assert_eq!(answer.code(), "metering_unavailable");
            return answered;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        answered += 1;
        assert!(answered < 10_000, "the log never fills");
    }
}

#[test]
fn a_log_that_is_full_at_start_recovers_by_itself() {
    let mut stack = Stack::with(small_log);
    stack.control.acknowledge(false);
    // Enough for one thread's segments to run out; the other's may still have room.
    let answered = fill(&stack);
    stack.gateway.kill();
    stack.control.stop();
    stack.gateway = stack.setup.spawn();
    wait_for("readiness has the reason", || {
        stack.chat(BODY);
        let (status, text) = stack.gateway.readiness();
        status == 503 && text.contains("is full")
    });
    assert!(stack.gateway.metric("tenon_gateway_wal_full") == 1.0);
    stack.control.acknowledge(true);
    stack.control.resume();
    wait_for("it recovers", || stack.gateway.readiness().0 == 200 && stack.chat(BODY).status == 200);
    wait_for("everything is shipped", || stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    assert!(stack.control.usage_count() > answered);
}

#[test]
fn unmetered_calls_are_served_counted_and_leave_nothing_half_done() {
    let mut stack = Stack::with(|setup| small_log(setup).with("TENON_GATEWAY_WHEN_LOG_FULL", "serve_unmetered"));
    stack.control.acknowledge(false);
    let mut unmetered = None;
    for _ in 0..10_000 {
        let answer = stack.chat(BODY);
        assert_eq!(answer.status, 200, "{}", answer.text());
        if stack.gateway.metric("tenon_gateway_calls_unmetered_total") > 0.0 {
            unmetered = Some(answer);
            break;
        }
    }
    let unmetered = unmetered.expect("the log never fills").request_id();
    assert_eq!(stack.gateway.readiness().0, 200);
    stack.control.acknowledge(true);
    stack.control.stop(); // so that what hangs unacknowledged goes again
    stack.control.resume();
    wait_for("all that was metered is shipped", || stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    assert!(stack.control.usage_of(&unmetered).is_none(), "no record, not half of one");
    wait_for("metering is back", || {
        let before = stack.gateway.metric("tenon_gateway_calls_unmetered_total");
        stack.chat(BODY);
        stack.gateway.metric("tenon_gateway_calls_unmetered_total") == before
    });
}

#[test]
fn strict_metering_answers_and_streams() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_WAL_STRICT", "true").with("TENON_GATEWAY_WAL_SYNC_MS", 60_000));
    let begun = std::time::Instant::now();
    let answer = stack.chat(BODY);
    assert_eq!((answer.status, answer.complete), (200, true));
    stack.upstream.respond(|_| support::whole_stream());
    let answer = stack.chat(support::STREAM_BODY);
    assert!(answer.complete && answer.text().ends_with("[DONE]\n\n"), "{}", answer.text());
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "it requests the sync instead of waiting for the timer");
    assert_eq!(stack.usage(&answer).output_tokens, 2);
}
