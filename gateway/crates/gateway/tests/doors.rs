//! What calls over HTTP have, sessions and the doors of the Open Inference Protocol have too: strict metering, the request log, `explain`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::Value;
use std::time::{Duration, Instant};
use support::inference::{self, infer};
use support::sessions::{self, CREATE, ended};
use support::{BODY, CHAT, endpoint, model, table};
use tenon_contract::{Limit, Protocol, Subject};
use tenon_testkit::{Caller, Gateway, Setup, get, post, wait_for};

const SEGMENT: u64 = 64 << 10;
const RPCS: [&str; 2] = ["ModelInfer", "ModelStreamInfer"];

fn small_log(setup: Setup) -> Setup {
    setup.with("TENON_GATEWAY_WAL_SEGMENT_BYTES", SEGMENT).with("TENON_GATEWAY_WAL_BYTES_MAX", 4 * SEGMENT).with("TENON_GATEWAY_THREADS", 1)
}

/// Opens a session, has one answer and leaves; or the refusal.
fn session(house: &sessions::House) -> Result<String, (u16, String)> {
    let bearer = format!("Bearer {}", house.key.text);
    let mut caller = Caller::open(house.gateway.address, "/v1/realtime?model=m", &[("authorization", &bearer)])?;
    caller.say(CREATE);
    (0..3).for_each(|_| drop(caller.hear()));
    caller.socket.close(None).unwrap();
    assert_eq!(caller.closed(), 1005, "their close comes back");
    Ok(caller.request_id)
}

#[test]
fn a_full_log_refuses_sessions_and_serves_them_again() {
    let mut house = sessions::House::with(|_| {}, small_log);
    house.control.acknowledge(false);
    let mut opened = 0;
    let refused = loop {
        match session(&house) {
            Ok(_) => opened += 1,
            Err(refused) => break refused,
        }
        assert!(opened < 10_000, "the log never fills");
    };
    assert!(refused.0 == 503 && refused.1.contains("metering_unavailable"), "{refused:?}");
    let heard = house.upstream.opened.lock().unwrap().len();
    assert_eq!(heard, opened, "the endpoint heard of none that was refused");
    house.control.acknowledge(true);
    house.control.stop();
    house.control.resume();
    wait_for("it recovers", || session(&house).is_ok());
    wait_for("everything is shipped", || house.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    assert_eq!(house.control.usage_count(), house.upstream.opened.lock().unwrap().len(), "one record each");
}

/// An inference house whose log is being filled by calls that fail quickly, until `is_full`; how many records there are.
fn filled(setting: fn(Setup) -> Setup, is_full: impl Fn(&inference::House, u16) -> bool) -> (inference::House, usize) {
    let house = inference::House::with(|_| {}, setting);
    let mut here = endpoint("e1", &house.upstream.url());
    here.protocol = Protocol::KserveGrpc as i32;
    let models = vec![model("m", "e1"), model("nowhere", "e2")];
    house.gateway.wait_revision(house.control.put_routing(table(vec![here, endpoint("e2", "http://127.0.0.1:1")], models)));
    house.control.acknowledge(false);
    let body = BODY.replace("\"m\"", "\"nowhere\"");
    let filling = (0..10_000).find(|_| is_full(&house, post(house.gateway.address, CHAT, &house.key.text, &body).status));
    let records = filling.expect("the log never fills");
    (house, records)
}

#[test]
fn a_full_log_refuses_inferences_and_serves_them_again() {
    let (mut house, records) = filled(small_log, |_, status| status == 503);
    for rpc in RPCS {
        let refused = house.call(rpc, &[infer("m")]);
        assert_eq!((refused.status(), refused.code(), house.asked()), (Some(14), "metering_unavailable".into(), 0));
    }
    house.control.acknowledge(true);
    house.control.stop();
    house.control.resume();
    wait_for("it recovers", || house.call("ModelStreamInfer", &[infer("m")]).status() == Some(0));
    wait_for("everything is shipped", || house.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    assert_eq!(house.control.usage_count(), records + house.asked(), "one record each");
}

fn unmetered(setup: Setup) -> Setup {
    small_log(setup).with("TENON_GATEWAY_WHEN_LOG_FULL", "serve_unmetered")
}

fn calls_unmetered(gateway: &Gateway) -> f64 {
    gateway.metric("tenon_gateway_calls_unmetered_total")
}

/// Nothing is acknowledged: from the first call that is not metered on none is.
#[test]
fn where_that_was_chosen_a_full_log_serves_both_unmetered() {
    let house = sessions::House::with(|_| {}, unmetered);
    house.control.acknowledge(false);
    (0..10_000).find(|_| session(&house).is_ok() && calls_unmetered(&house.gateway) > 0.0).expect("the log never fills");
    let last = session(&house).unwrap();
    assert!(house.control.usage_of(&last).is_none(), "no record, not half of one");
    let (house, _) = filled(unmetered, |house, _| calls_unmetered(&house.gateway) > 0.0);
    let before = calls_unmetered(&house.gateway);
    let seen = RPCS.map(|rpc| house.call(rpc, &[infer("m")]));
    assert!(seen.iter().all(|seen| seen.status() == Some(0)));
    assert_eq!(calls_unmetered(&house.gateway), before + 2.0);
    assert!(seen.iter().all(|seen| house.control.usage_of(&seen.request_id()).is_none()));
}

fn strict(setup: Setup) -> Setup {
    setup.with("TENON_GATEWAY_WAL_STRICT", "true").with("TENON_GATEWAY_WAL_SYNC_MS", 60_000)
}

/// With a timer of a minute whoever waits for the disk must have asked for the sync.
#[test]
fn strict_metering_brings_both_to_the_disk_before_their_end_is_told() {
    let begun = Instant::now();
    let house = sessions::House::with(|_| {}, strict);
    let id = session(&house).unwrap();
    assert_eq!(house.record(&id).output_tokens, 10);
    let mut caller = house.open();
    house.control.revoke("keykeykey1");
    assert_eq!(ended(&mut caller), ("key_revoked".into(), 1008));
    let house = inference::House::with(|_| {}, strict);
    for (rpc, output) in RPCS.into_iter().zip([7, 3]) {
        let seen = house.call(rpc, &[infer("m")]);
        assert_eq!((seen.status(), house.record(&seen).output_tokens), (Some(0), output));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

fn sampled(setup: Setup) -> Setup {
    let file = setup.data_dir().join("requests.jsonl").display().to_string();
    let setup = setup.with("TENON_GATEWAY_REQUEST_LOG_RATIO", 1).with("TENON_GATEWAY_REQUEST_LOG_FILE", file);
    setup.with("TENON_GATEWAY_REQUEST_LOG_BODIES", "redacted")
}

/// The lines of the request log, when there are so many; with the whole text.
fn lines(setup: &Setup, count: usize) -> (Vec<Value>, String) {
    let file = setup.data_dir().join("requests.jsonl");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_for("the lines", || read().lines().count() == count && read().ends_with('\n'));
    let text = read();
    (text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), text)
}

#[test]
fn the_request_log_has_sessions_and_inferences_without_what_was_said() {
    let house = sessions::House::with(|_| {}, sampled);
    let mut caller = house.open();
    caller.say(r#"{"type":"conversation.item.create","item":{"content":"a word nobody may read"}}"#);
    caller.hear();
    caller.socket.close(None).unwrap();
    let (told, text) = lines(&house.setup, 1);
    assert_eq!((&told[0]["request_id"], &told[0]["operation"]), (&caller.request_id.clone().into(), &"realtime".into()));
    assert_eq!((&told[0]["outcome"], &told[0]["http_status"]), (&"completed".into(), &101.into()));
    assert!(!text.contains("nobody may read") && !text.contains(&house.key.text) && !text.contains("upstream-secret"), "{text}");
    let house = inference::House::with(|_| {}, sampled);
    for rpc in RPCS {
        assert_eq!(house.call(rpc, &[[infer("m"), inference::field(7, b"nobody may read")].concat()]).status(), Some(0));
    }
    let (told, text) = lines(&house.setup, 2);
    assert!(told.iter().all(|line| line["operation"] == "infer" && line["outcome"] == "completed"), "{text}");
    assert!(!text.contains("nobody may read") && !text.contains(&house.key.text) && !text.contains("upstream-secret"), "{text}");
}

fn explained(at: std::net::SocketAddr, key: &str, id: &str) -> Value {
    let ask = || get(at, &format!("/v1/requests/{id}/explain"), key);
    wait_for("the call ends", || ask().status == 200);
    ask().json()
}

#[test]
fn sessions_are_explained() {
    let house = sessions::House::new();
    let id = session(&house).unwrap();
    let told = explained(house.gateway.address, &house.key.text, &id);
    assert_eq!((&told["operation"], &told["outcome"], &told["http_status"]), (&"realtime".into(), &"completed".into(), &101.into()));
    assert_eq!((&told["attempts"][0]["endpoint_id"], &told["attempts"][0]["status"]), (&"e1".into(), &101.into()));
    assert_eq!((&told["usage"]["input_tokens"], &told["usage"]["source"]), (&20.into(), &"engine".into()));
    assert!(told["timings"]["first_token_us"].as_u64().is_some());
    let limit = Limit { limit_id: "l".into(), subject: Subject::Model as i32, subject_id: "m".into(), concurrency: 1, ..Limit::default() };
    house.govern(vec![limit]);
    let _held = house.open();
    let (status, body) = session(&house).unwrap_err();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["error"]["code"]), (429, &"concurrency_limit_exceeded".into()));
    let told = explained(house.gateway.address, &house.key.text, body["error"]["request_id"].as_str().unwrap());
    assert_eq!((&told["outcome"], &told["code"]), (&"refused".into(), &"concurrency_limit_exceeded".into()));
}

#[test]
fn inferences_are_explained() {
    let house = inference::House::new();
    for (rpc, output) in RPCS.into_iter().zip([7, 3]) {
        let seen = house.call(rpc, &[infer("m")]);
        let told = explained(house.gateway.address, &house.key.text, &seen.request_id());
        assert_eq!((&told["operation"], &told["outcome"], &told["streamed"]), (&"infer".into(), &"completed".into(), &(rpc == RPCS[1]).into()));
        assert_eq!((&told["attempts"][0]["status"], &told["usage"]["output_tokens"]), (&200.into(), &output.into()));
        let seen = house.call(rpc, &[infer("refuse")]);
        let told = explained(house.gateway.address, &house.key.text, &seen.request_id());
        assert_eq!((&told["outcome"], &told["model"]), (&"upstream_error".into(), &"refuse".into()));
    }
}
