//! Too many, too large, too slow: memory is bounded, refusals come early, and nothing is held indefinitely.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::{BODY, CHAT, STREAM_BODY, Stack, frame};
use tenon_contract::Outcome;
use tenon_testkit::{Answer, Client, Step, sse_head, wait_for};

const MEGABYTE: usize = 1 << 20;

fn head(stack: &Stack, length: usize) -> Vec<u8> {
    format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\nx-api-key: {}\r\ncontent-length: {length}\r\n\r\n", stack.key.text).into_bytes()
}

fn big_body(length: usize) -> String {
    BODY.replace("hi", &"x".repeat(length - BODY.len() + 2))
}

#[test]
fn bodies_together_have_a_bound_and_the_next_is_refused_before_it_is_read() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_BODY_MEMORY_MAX", 3 * MEGABYTE).with("TENON_GATEWAY_BODY_IDLE_MS", 1500));
    assert_eq!(stack.chat(&big_body(2 * MEGABYTE)).status, 200);
    wait_for("what it held is given back", || stack.gateway.metric("tenon_gateway_body_bytes") == 0.0);
    // Two that announce their length and send only the beginning.
    let mut held = Client::send(stack.gateway.address, &[head(&stack, 2 * MEGABYTE), b"{".to_vec()].concat());
    wait_for("its memory is reserved", || stack.gateway.metric("tenon_gateway_body_bytes") >= 2.0 * MEGABYTE as f64);
    let refused = Client::send(stack.gateway.address, &[head(&stack, 2 * MEGABYTE), b"{".to_vec()].concat()).finish();
    assert_eq!((refused.status, refused.code(), refused.header("retry-after")), (503, "overloaded".into(), Some("1")));
    assert_eq!(stack.chat(BODY).status, 200, "small ones pass");
    let dropped = held.head();
    assert_eq!(dropped.status, 408, "a body that stands still is not waited for");
    wait_for("what it held is given back", || stack.gateway.metric("tenon_gateway_body_bytes") == 0.0);
    assert_eq!(stack.chat(&big_body(2 * MEGABYTE)).status, 200);
}

#[test]
fn a_body_that_drips_meets_the_total() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_BODY_READ_MS", 700));
    let mut slow = Client::send(stack.gateway.address, &head(&stack, 1000));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) && slow.write(b" ").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
        if begun.elapsed() > Duration::from_millis(1200) {
            break;
        }
    }
    assert_eq!(slow.head().status, 408);
}

#[test]
fn one_connection_too_many_is_refused() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_THREADS", 1).with("TENON_GATEWAY_CONNECTIONS_MAX", 3));
    let held: Vec<_> = (0..3).map(|_| TcpStream::connect(stack.gateway.address).unwrap()).collect();
    wait_for("they are taken", || stack.gateway.metric("tenon_gateway_connections") == 3.0);
    let answer: Answer = stack.chat(BODY);
    assert_eq!((answer.status, answer.code(), answer.header("connection")), (503, "overloaded".into(), Some("close")));
    drop(held);
    wait_for("there is room again", || stack.chat(BODY).status == 200);
    assert!(stack.gateway.metric("tenon_gateway_connections_refused_total") >= 1.0);
}

#[test]
fn a_caller_who_does_not_read_is_let_go_and_its_upstream_with_it() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_CALLER_STALL_MS", 1000));
    stack.upstream.respond(|_| {
        // More than all sockets on the way may hold.
        let frames = (0..1000).map(|_| Step::Send(frame(&"y".repeat(4000)).repeat(16)));
        [vec![Step::Send(sse_head())], frames.collect(), vec![Step::UntilGone]].concat()
    });
    let mut stalled = TcpStream::connect(stack.gateway.address).unwrap();
    stalled.write_all(&[head(&stack, STREAM_BODY.len()), STREAM_BODY.as_bytes().to_vec()].concat()).unwrap();
    stalled.read_exact(&mut [0; 100]).unwrap();
    wait_for("it is let go", || stack.gateway.metric("tenon_gateway_callers_stalled_total") == 1.0);
    wait_for("nothing runs", || stack.gateway.metric("tenon_gateway_calls_running") == 0.0);
    wait_for("it is recorded", || stack.control.usage().iter().any(|record| record.outcome() == Outcome::ClientGone));
    // One who reads slowly, but reads, is not.
    stack.upstream.respond(|_| {
        let frames = (0..25).flat_map(|_| [Step::Send(frame("z")), Step::Wait(Duration::from_millis(100))]);
        [vec![Step::Send(sse_head())], frames.collect(), support::whole_stream()[3..].to_vec()].concat()
    });
    assert!(stack.chat(STREAM_BODY).text().ends_with("[DONE]\n\n"));
    assert_eq!(stack.gateway.metric("tenon_gateway_callers_stalled_total"), 1.0);
    assert_eq!(stack.upstream.cancelled.load(Ordering::SeqCst), 0, "it was cut while it wrote");
}
