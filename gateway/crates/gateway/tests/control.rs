//! With and without the control plane: late answers, restarts, full logs, drains.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::Duration;
use support::{BODY, CHAT, House, STREAM_BODY, TENANT, endpoint, frame, model, setup, table};
use tenon_contract::Outcome;
use tenon_testkit::{Control, Step, TestKey, Upstream, get, json_answer, post, sse_head, wait_for};

#[test]
fn an_unknown_key_is_asked_for_once_and_remembered() {
    let house = House::new();
    let at = house.gateway.address;
    let new = TestKey::new("brandnew01", TENANT);
    assert_eq!(post(at, CHAT, &new.text, BODY).code(), "invalid_api_key");
    assert_eq!(post(at, CHAT, &new.text, BODY).code(), "invalid_api_key");
    assert_eq!(house.control.resolves(), 1, "the second time it is remembered");
    house.put_key(&new);
    assert_eq!(post(at, CHAT, &new.text, BODY).status, 200, "the create event drops the memory");
    // Not on the stream yet: resolved, by one question for all who wait.
    let hidden = TestKey::new("hiddenkey1", TENANT);
    house.control.hide_key(hidden.record.clone().tap(|r| r.revision = 100), 100);
    house.control.delay_resolves(Duration::from_millis(200));
    let calls: Vec<_> =
        (0..8).map(|_| (at, hidden.text.clone())).map(|(at, key)| std::thread::spawn(move || post(at, CHAT, &key, BODY).status)).collect();
    assert!(calls.into_iter().all(|call| call.join().unwrap() == 200));
    assert_eq!(house.control.resolves(), 2);
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
    let house = House::new();
    let at = house.gateway.address;
    let key = TestKey::new("latelate01", TENANT);
    let read_at = house.control.revision();
    house.control.hide_key(key.record.clone().tap(|r| r.revision = read_at), read_at);
    house.control.delay_resolves(Duration::from_millis(300));
    let text = key.text.clone();
    let asking = std::thread::spawn(move || post(at, CHAT, &text, BODY).code());
    wait_for("the question", || house.control.resolves() == 1);
    house.put_key(&key.clone().with(|r| r.revoked = true));
    assert_eq!(asking.join().unwrap(), "key_revoked");
    assert_eq!(post(at, CHAT, &key.text, BODY).code(), "key_revoked");
    assert_eq!(house.upstream.count(), 0);
}

#[test]
fn it_serves_on_without_the_control_plane_and_catches_up() {
    let mut house = House::new();
    let strict = TestKey::new("strictkey1", TENANT).with(|r| r.strict = true);
    house.put_key(&strict);
    house.control.stop();
    wait_for("it notices", || house.gateway.readiness().1.starts_with("stale"));
    assert_eq!(house.chat(BODY).status, 200);
    assert_eq!(post(house.gateway.address, CHAT, &strict.text, BODY).status, 200, "strict lives ten seconds");
    let unknown = post(house.gateway.address, CHAT, &TestKey::new("nobodysees", TENANT).text, BODY);
    assert_eq!((unknown.status, unknown.code().as_str(), unknown.header("x-should-retry")), (503, "key_unresolvable", None));
    assert_eq!(house.gateway.metric("tenon_gateway_wal_backlog_records"), 2.0);
    house.control.resume();
    wait_for("it ships", || house.control.usage_count() == 2);
    wait_for("nothing is left", || house.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    // Shipping and updates come back each in their own time.
    wait_for("it is ready again", || house.gateway.readiness() == (200, "ready\n".into()));
}

#[test]
fn a_start_without_the_control_plane_uses_what_was_last_known() {
    let house = House::with(|setup| setup.with("TENON_GATEWAY_STALENESS_MAX_MS", 3000));
    let strict = TestKey::new("strictkey1", TENANT).with(|r| r.strict = true);
    house.put_key(&strict);
    wait_for("the copy on disk", || {
        std::fs::read(house.setup.data_dir().join("data/last-known-good.bin")).is_ok_and(|f| f.windows(10).any(|w| w == b"strictkey1"))
    });
    let mut gateway = house.gateway;
    gateway.kill();
    house.control.stop();
    let gateway = house.setup.spawn();
    let (status, text) = gateway.readiness();
    assert!(status == 200 && text.starts_with("stale"), "{text}");
    assert_eq!(post(gateway.address, CHAT, &house.key.text, BODY).status, 200);
    assert_eq!(house.upstream.last().header("authorization"), Some("Bearer upstream-secret"));
    assert_eq!(post(gateway.address, CHAT, &strict.text, BODY).code(), "key_not_fresh");
    std::thread::sleep(Duration::from_millis(3200));
    assert_eq!(post(gateway.address, CHAT, &house.key.text, BODY).code(), "snapshot_too_old");
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
fn a_changed_copy_on_disk_is_not_believed() {
    let house = House::new();
    let path = house.setup.data_dir().join("data/last-known-good.bin");
    wait_for("the copy on disk", || path.exists());
    let mut gateway = house.gateway;
    gateway.kill();
    house.control.stop();
    let mut file = std::fs::read(&path).unwrap();
    let middle = file.len() / 2;
    file[middle] ^= 1;
    std::fs::write(&path, file).unwrap();
    assert_eq!(house.setup.spawn().readiness().0, 503);
}

#[test]
fn what_was_not_acknowledged_ships_after_a_kill_and_running_calls_are_unknown() {
    let house = House::new();
    house.control.acknowledge(false);
    let done = house.chat(BODY);
    house.usage(&done);
    house.upstream.say(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone]);
    let mut running = house.open(STREAM_BODY);
    let head = running.head();
    assert!(running.chunk().unwrap().is_some());
    let mut gateway = house.gateway;
    gateway.kill();
    house.control.acknowledge(true);
    let again = house.setup.start();
    wait_for("both records", || house.control.usage_count() == 2);
    assert_eq!(house.control.usage_of(&head.request_id()).unwrap().outcome(), Outcome::Unknown);
    assert_eq!(house.control.usage_of(&done.request_id()).unwrap().outcome(), Outcome::Completed);
    assert!(house.control.duplicates() >= 1, "shipped twice, kept once");
    wait_for("all is shipped", || again.metric("tenon_gateway_wal_backlog_records") == 0.0);
}

#[test]
fn a_full_log_refuses_calls_until_it_has_shipped() {
    let mut house = House::with(|s| {
        s.with("TENON_GATEWAY_WAL_SEGMENT_BYTES", 65536).with("TENON_GATEWAY_WAL_BYTES_MAX", 65536 * 4).with("TENON_GATEWAY_THREADS", 1)
    });
    house.control.stop();
    let mut calls = 0;
    let refused = loop {
        let answer = house.chat(BODY);
        if answer.status != 200 {
            break answer;
        }
        calls += 1;
        assert!(calls < 20_000);
    };
    assert_eq!((refused.status, refused.code().as_str()), (503, "metering_unavailable"));
    let asked = house.upstream.count();
    assert_eq!(house.chat(BODY).status, 503);
    assert_eq!(house.upstream.count(), asked, "what cannot be metered is not called");
    house.control.resume();
    wait_for("room again", || house.chat(BODY).status == 200);
    wait_for("every call is there", || house.control.usage_count() == calls + 1);
}

#[test]
fn on_sigterm_answers_finish_and_usage_ships() {
    let mut house = House::new();
    house.upstream.say(|_| vec![Step::Wait(Duration::from_millis(400)), Step::Send(json_answer(200, support::ANSWER))]);
    let (at, key) = (house.gateway.address, house.key.text.clone());
    let running = std::thread::spawn(move || post(at, CHAT, &key, BODY));
    wait_for("the call", || house.upstream.count() == 1);
    house.gateway.terminate();
    let answer = running.join().unwrap();
    assert_eq!(answer.status, 200);
    assert!(house.gateway.wait_end().success());
    assert_eq!(house.control.usage_of(&answer.request_id()).map(|r| r.outcome()), Some(Outcome::Completed), "shipped before the end");
    assert!(std::net::TcpStream::connect(at).is_err());
}

#[test]
fn it_says_in_one_sentence_why_it_does_not_start() {
    let control = Control::start();
    let fails = |setup: &tenon_testkit::Setup, code: i32, word: &str| {
        let output = setup.command().stderr(std::process::Stdio::piped()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(word) && told.lines().count() == 1, "{told}");
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
fn metrics_tell_what_happened() {
    let house = House::new();
    house.chat(BODY);
    house.chat("{}");
    let answer = house.chat(BODY);
    house.usage(&answer);
    assert_eq!(house.gateway.metric("tenon_gateway_requests_total{operation=\"chat\",class=\"2xx\"}"), 2.0);
    assert_eq!(house.gateway.metric("tenon_gateway_refusals_total{code=\"missing_parameter\"}"), 1.0);
    assert_eq!(house.gateway.metric("tenon_gateway_tokens_total{kind=\"input\"}"), 22.0);
    assert_eq!(house.gateway.metric("tenon_gateway_call_duration_seconds_count"), 2.0);
    assert_eq!(house.gateway.metric("tenon_gateway_control_connected"), 1.0);
    assert!(house.gateway.metric("tenon_gateway_wal_bytes") > 0.0);
    assert_eq!(house.gateway.metric("tenon_gateway_build_info{version=\"0.1.0\"}"), 1.0);
}

#[test]
fn a_tenants_models_are_its_own() {
    let house = House::new();
    let other_upstream = Upstream::start(|_| vec![Step::Send(json_answer(200, "{}"))]);
    let other = TestKey::new("othertena1", "019a0000-0000-7000-8000-0000000000a9");
    let mut theirs = table(vec![endpoint("e9", &other_upstream.url())], vec![model("theirs", "e9")]);
    theirs.tenant_id = other.record.tenant_id.clone();
    house.control.put_routing(theirs);
    house.put_key(&other);
    let at = house.gateway.address;
    assert_eq!(house.chat(&BODY.replace("\"m\"", "\"theirs\"")).code(), "model_not_found");
    assert_eq!(post(at, CHAT, &other.text, BODY).code(), "model_not_found");
    assert_eq!(post(at, CHAT, &other.text, &BODY.replace("\"m\"", "\"theirs\"")).status, 200);
    assert_eq!(house.upstream.count(), 0);
}

#[test]
fn who_ends_in_order_ships_nothing_twice() {
    let mut house = House::new();
    (0..3).for_each(|_| assert_eq!(house.chat(BODY).status, 200));
    wait_for("all is shipped", || house.control.usage_count() == 3 && house.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    house.gateway.terminate();
    assert!(house.gateway.wait_end().success());
    house.gateway = house.setup.start();
    assert_eq!(house.chat(BODY).status, 200);
    wait_for("the next life ships", || house.control.usage_count() == 4 && house.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    assert_eq!(house.control.duplicates(), 0, "what was acknowledged is marked before the end");
}
