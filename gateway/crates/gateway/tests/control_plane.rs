//! With and without the control plane: late answers, restarts, full logs, drains.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{BODY, CHAT, STREAM_BODY, Stack, TENANT, endpoint, frame, model, setup, table};
use tenon_contract::Outcome;
use tenon_testkit::{Control, Step, TestKey, Upstream, get, json_answer, post, sse_head, wait_for};

#[test]
fn an_unknown_key_is_resolved_once_and_remembered() {
    let stack = Stack::new();
    let at = stack.gateway.address;
    let new = TestKey::new("brandnew01", TENANT);
    assert_eq!(post(at, CHAT, &new.text, BODY).code(), "invalid_api_key");
    assert_eq!(post(at, CHAT, &new.text, BODY).code(), "invalid_api_key");
    assert_eq!(stack.control.resolves(), 1, "the second time it is remembered");
    stack.put_key(&new);
    assert_eq!(post(at, CHAT, &new.text, BODY).status, 200, "the create event drops the memory");
    // Not on the stream yet: it is resolved, with one lookup for all waiting calls.
    let hidden = TestKey::new("hiddenkey1", TENANT);
    stack.control.hide_key(hidden.record.clone().tap(|r| r.revision = 100), 100);
    stack.control.hold_resolves(true);
    let calls: Vec<_> =
        (0..8).map(|_| (at, hidden.text.clone())).map(|(at, key)| std::thread::spawn(move || post(at, CHAT, &key, BODY).status)).collect();
    wait_for("all calls have arrived", || stack.gateway.metric("tenon_gateway_connections") >= 8.0 && stack.control.resolves() == 2);
    stack.control.hold_resolves(false);
    assert!(calls.into_iter().all(|call| call.join().unwrap() == 200));
    assert_eq!(stack.control.resolves(), 2);
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
impl<T> Tap for T {}

#[test]
fn a_late_answer_does_not_revive_a_revoked_key() {
    let stack = Stack::new();
    let at = stack.gateway.address;
    let key = TestKey::new("latelate01", TENANT);
    let read_at = stack.control.revision();
    stack.control.hide_key(key.record.clone().tap(|r| r.revision = read_at), read_at);
    stack.control.hold_resolves(true);
    let text = key.text.clone();
    let waiting = std::thread::spawn(move || post(at, CHAT, &text, BODY).code());
    wait_for("the lookup", || stack.control.resolves() == 1);
    stack.put_key(&key.clone().with(|r| r.revoked = true));
    stack.control.hold_resolves(false);
    assert_eq!(waiting.join().unwrap(), "key_revoked");
    assert_eq!(post(at, CHAT, &key.text, BODY).code(), "key_revoked");
    assert_eq!(stack.upstream.count(), 0);
}

#[test]
fn it_serves_on_without_the_control_plane_and_catches_up() {
    let mut stack = Stack::new();
    let strict = TestKey::new("strictkey1", TENANT).with(|r| r.strict = true);
    stack.put_key(&strict);
    stack.control.stop();
    wait_for("it is stale", || stack.gateway.readiness().1.starts_with("stale"));
    assert_eq!(stack.chat(BODY).status, 200);
    assert_eq!(post(stack.gateway.address, CHAT, &strict.text, BODY).status, 200, "strict lives ten seconds");
    let unknown = post(stack.gateway.address, CHAT, &TestKey::new("nobodysees", TENANT).text, BODY);
    assert_eq!((unknown.status, unknown.code().as_str(), unknown.header("x-should-retry")), (503, "key_unresolvable", None));
    assert_eq!(stack.gateway.metric("tenon_gateway_wal_backlog_records"), 2.0);
    stack.control.resume();
    wait_for("it ships", || stack.control.usage_count() == 2);
    wait_for("nothing is left", || stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    // Shipping and updates come back each in their own time.
    wait_for("it is ready again", || stack.gateway.readiness() == (200, "ready\n".into()));
}

#[test]
fn a_start_without_the_control_plane_uses_what_was_last_known() {
    let stack = Stack::new();
    let strict = TestKey::new("strictkey1", TENANT).with(|r| r.strict = true);
    stack.put_key(&strict);
    wait_for("the copy on disk", || {
        std::fs::read(stack.setup.data_dir().join("data/last-known-good.bin")).is_ok_and(|f| f.windows(10).any(|w| w == b"strictkey1"))
    });
    let mut gateway = stack.gateway;
    gateway.kill();
    stack.control.stop();
    let gateway = stack.setup.spawn();
    let (status, text) = gateway.readiness();
    assert!(status == 200 && text.starts_with("stale"), "{text}");
    assert_eq!(post(gateway.address, CHAT, &stack.key.text, BODY).status, 200);
    assert_eq!(stack.upstream.last().header("authorization"), Some("Bearer upstream-secret"));
    assert_eq!(post(gateway.address, CHAT, &strict.text, BODY).code(), "key_not_fresh");
}

#[test]
fn a_snapshot_older_than_the_maximum_staleness_serves_no_key() {
    let mut stack = Stack::new();
    let path = stack.setup.data_dir().join("data/last-known-good.bin");
    wait_for("the copy on disk", || path.exists());
    stack.gateway.kill();
    stack.control.stop();
    stack.setup.environment.push(("TENON_GATEWAY_STALENESS_MAX_MS", "1".into()));
    stack.gateway = stack.setup.spawn();
    assert_eq!(stack.chat(BODY).code(), "snapshot_too_old");
}

#[test]
fn with_nothing_known_it_is_not_ready() {
    let control = Control::start();
    control.stop();
    let setup = setup(&control);
    let gateway = setup.spawn();
    assert_eq!(gateway.readiness().0, 503);
    assert_eq!(get(gateway.admin, "/livez", "").status, 200);
    assert_eq!(post(gateway.address, CHAT, &TestKey::new("keykeykey1", TENANT).text, BODY).code(), "key_unresolvable");
}

#[test]
fn a_changed_snapshot_on_disk_is_refused() {
    let stack = Stack::new();
    let path = stack.setup.data_dir().join("data/last-known-good.bin");
    wait_for("the copy on disk", || path.exists());
    let mut gateway = stack.gateway;
    gateway.kill();
    stack.control.stop();
    let mut file = std::fs::read(&path).unwrap();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    std::fs::write(&path, file).unwrap();
    assert_eq!(stack.setup.spawn().readiness().0, 503);
}

#[test]
fn what_was_not_acknowledged_ships_after_a_kill_and_running_calls_are_unknown() {
    let stack = Stack::new();
    stack.control.acknowledge(false);
    let done = stack.chat(BODY);
    stack.usage(&done);
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone]);
    let mut running = stack.open(STREAM_BODY);
    let head = running.head();
    assert!(running.chunk().unwrap().is_some());
    let mut gateway = stack.gateway;
    gateway.kill();
    stack.control.acknowledge(true);
    let again = stack.setup.start();
    wait_for("both records", || stack.control.usage_count() == 2);
    assert_eq!(stack.control.usage_of(&head.request_id()).unwrap().outcome(), Outcome::Unknown);
    assert_eq!(stack.control.usage_of(&done.request_id()).unwrap().outcome(), Outcome::Completed);
    assert!(stack.control.duplicates() >= 1, "shipped twice, kept once");
    wait_for("all is shipped", || again.metric("tenon_gateway_wal_backlog_records") == 0.0);
}

#[test]
fn a_full_log_refuses_calls_until_it_has_shipped() {
    let mut stack = Stack::with(|s| {
        s.with("TENON_GATEWAY_WAL_SEGMENT_BYTES", 65536).with("TENON_GATEWAY_WAL_BYTES_MAX", 65536 * 4).with("TENON_GATEWAY_THREADS", 1)
    });
    stack.control.stop();
    let mut calls = 0;
    let refused = loop {
        let answer = stack.chat(BODY);
        if answer.status != 200 {
            break answer;
        }
        calls += 1;
        assert!(calls < 20_000);
    };
    assert_eq!((refused.status, refused.code().as_str()), (503, "metering_unavailable"));
    let received = stack.upstream.count();
    assert_eq!(stack.chat(BODY).status, 503);
    assert_eq!(stack.upstream.count(), received, "what cannot be metered is not called");
    stack.control.resume();
    wait_for("room again", || stack.chat(BODY).status == 200);
    wait_for("every call is there", || stack.control.usage_count() == calls + 1);
}

#[test]
fn on_sigterm_answers_finish_and_usage_ships() {
    let mut stack = Stack::new();
    let finish = Arc::new(AtomicBool::new(false));
    let flag = finish.clone();
    stack.upstream.respond(move |_| vec![Step::Until(flag.clone()), Step::Send(json_answer(200, support::ANSWER))]);
    let (at, key) = (stack.gateway.address, stack.key.text.clone());
    let running = std::thread::spawn(move || post(at, CHAT, &key, BODY));
    wait_for("the call", || stack.upstream.count() == 1);
    stack.gateway.terminate();
    wait_for("it accepts no connection", || std::net::TcpStream::connect(at).is_err());
    finish.store(true, Ordering::SeqCst);
    let answer = running.join().unwrap();
    assert_eq!(answer.status, 200);
    assert!(stack.gateway.wait_end().success());
    assert_eq!(stack.control.usage_of(&answer.request_id()).map(|r| r.outcome()), Some(Outcome::Completed), "shipped before the end");
    assert!(std::net::TcpStream::connect(at).is_err());
}

#[test]
fn a_failed_start_is_explained_in_one_sentence() {
    let control = Control::start();
    let fails = |setup: &tenon_testkit::Setup, code: i32, word: &str| {
        let output = setup.command().stderr(std::process::Stdio::piped()).output().unwrap();
        let output_text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{output_text}");
        assert!(output_text.contains(word) && output_text.lines().count() == 1, "{output_text}");
    };
    let good = setup(&control);
    let taken = std::net::TcpListener::bind(good.address).unwrap();
    fails(&good, 3, "cannot listen on");
    drop(taken);
    let running = good.start();
    let mut other = setup(&control);
    other.address = running.address;
    fails(&other, 3, "cannot listen on");
    fails(&setup(&control).with("TENON_GATEWAY_DATA_DIR", "/proc/nowhere"), 4, "data directory");
    fails(&setup(&control).with("TENON_GATEWAY_SEALING_KEY_FILE", "/dev/null"), 4, "sealing key");
    fails(&setup(&control).with("TENON_GATEWAY_LISTEN", "here"), 2, "TENON_GATEWAY_LISTEN");
}

#[test]
fn metrics_count_calls_and_refusals() {
    let stack = Stack::new();
    stack.chat(BODY);
    stack.chat("{}");
    let answer = stack.chat(BODY);
    stack.usage(&answer);
    assert_eq!(stack.gateway.metric("tenon_gateway_requests_total{operation=\"chat\",class=\"2xx\"}"), 2.0);
    assert_eq!(stack.gateway.metric("tenon_gateway_refusals_total{code=\"missing_parameter\"}"), 1.0);
    assert_eq!(stack.gateway.metric("tenon_gateway_tokens_total{kind=\"input\"}"), 22.0);
    assert_eq!(stack.gateway.metric("tenon_gateway_call_duration_seconds_count"), 2.0);
    assert_eq!(stack.gateway.metric("tenon_gateway_control_connected"), 1.0);
    assert!(stack.gateway.metric("tenon_gateway_wal_bytes") > 0.0);
    assert_eq!(stack.gateway.metric("tenon_gateway_build_info{version=\"0.1.0\"}"), 1.0);
}

#[test]
fn a_tenants_models_are_its_own() {
    let stack = Stack::new();
    let other_upstream = Upstream::start(|_| vec![Step::Send(json_answer(200, "{}"))]);
    let other = TestKey::new("othertena1", "019a0000-0000-7000-8000-0000000000a9");
    let mut theirs = table(vec![endpoint("e9", &other_upstream.url())], vec![model("theirs", "e9")]);
    theirs.tenant_id = other.record.tenant_id.clone();
    stack.control.put_routing(theirs);
    stack.put_key(&other);
    let at = stack.gateway.address;
    assert_eq!(stack.chat(&BODY.replace("\"m\"", "\"theirs\"")).code(), "model_not_found");
    assert_eq!(post(at, CHAT, &other.text, BODY).code(), "model_not_found");
    assert_eq!(post(at, CHAT, &other.text, &BODY.replace("\"m\"", "\"theirs\"")).status, 200);
    assert_eq!(stack.upstream.count(), 0);
}

#[test]
fn a_gateway_that_stops_in_order_ships_nothing_twice() {
    let mut stack = Stack::new();
    (0..3).for_each(|_| assert_eq!(stack.chat(BODY).status, 200));
    wait_for("all is shipped", || stack.control.usage_count() == 3 && stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    stack.gateway.terminate();
    assert!(stack.gateway.wait_end().success());
    stack.gateway = stack.setup.start();
    assert_eq!(stack.chat(BODY).status, 200);
    wait_for("the next process ships", || stack.control.usage_count() == 4 && stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    assert_eq!(stack.control.duplicates(), 0, "what was acknowledged is marked before the end");
}
