//! A rolling restart under load with long streams: no caller notices. The new process takes the sockets over, the old one finishes its calls.
//!
//! `TENON_STREAM_SECONDS` sets how long the streams are (default 3; 600 for the real thing).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{ANSWER, BODY, CHAT, DONE, STREAM_BODY, Stack, USAGE_FRAME, frame};
use tenon_testkit::{Client, Gateway, Step, json_answer, post, sse_head, wait_for};

const CALLERS: usize = 8;
const STREAMS: usize = 6;
const RESTARTS: usize = 3;

fn stream_seconds() -> u64 {
    std::env::var("TENON_STREAM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Calls over one connection for as long as it may be used, then over the next; how many were answered and what failed.
fn call_until(stop: &AtomicBool, at: SocketAddr, key: &str) -> (Vec<String>, Vec<String>) {
    let raw = format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len());
    let (mut answered, mut failed) = (Vec::new(), Vec::new());
    // Ten minutes at full speed would be millions of records to compare.
    let pace = Duration::from_millis(if stream_seconds() > 60 { 20 } else { 0 });
    'connection: while !stop.load(Ordering::SeqCst) {
        let mut client = match Client::connect(at) {
            Ok(client) => client,
            Err(error) => {
                failed.push(format!("connect: {error}"));
                continue;
            }
        };
        while !stop.load(Ordering::SeqCst) {
            let head = client.write(raw.as_bytes()).and_then(|()| client.try_head());
            let mut answer = match head {
                Ok(answer) => answer,
                Err(error) => {
                    failed.push(format!("call: {error}"));
                    continue 'connection;
                }
            };
            client.read_body(&mut answer);
            match answer.status {
                200 if answer.complete => answered.push(answer.request_id()),
                status => failed.push(format!("{status}: {}", answer.text())),
            }
            std::thread::sleep(pace);
            if answer.header("connection") == Some("close") {
                continue 'connection;
            }
        }
    }
    (answered, failed)
}

fn stream_once(at: SocketAddr, key: &str) -> Result<String, String> {
    let answer = post(at, CHAT, key, STREAM_BODY);
    let whole = answer.status == 200 && answer.complete && answer.text().ends_with("[DONE]\n\n");
    if whole { Ok(answer.request_id()) } else { Err(format!("{} complete: {}: {}", answer.status, answer.complete, answer.text())) }
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let seconds = stream_seconds();
    let mut stack = Stack::with(|setup| setup.with("TENON_GATEWAY_DRAIN_MS", (seconds + 30) * 1000));
    stack.upstream.respond(move |request| {
        if !request.body.windows(8).any(|w| w == b"\"stream\"") {
            return vec![Step::Send(json_answer(200, ANSWER))];
        }
        let frames = (0..seconds * 10).flat_map(|_| [Step::Send(frame("a")), Step::Wait(Duration::from_millis(100))]);
        [vec![Step::Send(sse_head())], frames.collect(), vec![Step::Send([USAGE_FRAME, DONE].concat()), Step::Close]].concat()
    });
    let stop = Arc::new(AtomicBool::new(false));
    let (at, key) = (stack.gateway.address, stack.key.text.clone());
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (stop, key) = (stop.clone(), key.clone());
            std::thread::spawn(move || call_until(&stop, at, &key))
        })
        .collect();
    let mut streams = Vec::new();
    let mut old: Vec<Gateway> = Vec::new();
    for _ in 0..RESTARTS {
        for _ in 0..STREAMS {
            let key = key.clone();
            streams.push(std::thread::spawn(move || stream_once(at, &key)));
        }
        std::thread::sleep(Duration::from_millis(300));
        let before = stack.gateway.child.id();
        let successor = stack.setup.spawn();
        wait_for("the successor serves", || successor.try_metric("tenon_gateway_process_id") == Some(f64::from(successor.child.id())));
        assert_ne!(before, successor.child.id());
        old.push(std::mem::replace(&mut stack.gateway, successor));
    }
    let streamed: Vec<_> = streams.into_iter().map(|stream| stream.join().unwrap()).collect();
    stop.store(true, Ordering::SeqCst);
    let called: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    let failed: Vec<_> = called.iter().flat_map(|(_, failed)| failed).collect();
    assert!(failed.is_empty(), "{} failed, first {:?}", failed.len(), failed.first());
    let broken: Vec<_> = streamed.iter().filter_map(|stream| stream.as_ref().err()).collect();
    assert!(broken.is_empty(), "{} of {} streams broke: {:?}", broken.len(), streamed.len(), broken.first());
    for mut gone in old {
        assert!(gone.wait_end().success(), "the old process drains and goes by itself");
    }
    let ids: Vec<_> = called.into_iter().flat_map(|(answered, _)| answered).chain(streamed.into_iter().map(Result::unwrap)).collect();
    println!("{} calls, {} streams of {seconds} s, {RESTARTS} restarts", ids.len(), STREAMS * RESTARTS);
    wait_for("every call has its record", || {
        let recorded: HashSet<_> = stack.control.usage().into_iter().map(|record| record.request_id).collect();
        ids.iter().all(|id| recorded.contains(id))
    });
    assert_eq!(stack.control.usage_count(), ids.len(), "and no call has two");
}

#[test]
fn a_successor_that_cannot_start_changes_nothing() {
    let stack = Stack::new();
    let bad = stack.setup.data_dir().join("nothing.pem").display().to_string();
    let mut command = stack.setup.command();
    command.env("TENON_GATEWAY_TLS_CERT_FILE", &bad).env("TENON_GATEWAY_TLS_KEY_FILE", &bad);
    assert_eq!(command.status().unwrap().code(), Some(2));
    let mut killed = stack.setup.command().env("TENON_GATEWAY_CONTROL_URL", "http://127.0.0.1:1").spawn().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(stack.chat(BODY).status, 200);
    // And after a successor, another one: the socket is the newest's.
    let second = stack.setup.spawn();
    wait_for("the second serves", || second.try_metric("tenon_gateway_process_id") == Some(f64::from(second.child.id())));
    let third = stack.setup.spawn();
    wait_for("the third serves", || third.try_metric("tenon_gateway_process_id") == Some(f64::from(third.child.id())));
    assert_eq!(stack.chat(BODY).status, 200);
}
