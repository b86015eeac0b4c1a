//! The road in status order: 401, 404, 403, 400, then what succeeds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{ANSWER, BODY, CHAT, House, TENANT, endpoint, model, table};
use tenon_contract::{KeyKind, Operation, Outcome, Route, UsageSource};
use tenon_testkit::{Client, Step, TestKey, Upstream, get, json_answer, post};

fn refused(answer: &tenon_testkit::Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["request_id"], answer.request_id());
    assert!(error["message"].as_str().is_some_and(|text| text.len() > 10) && error["type"].is_string() && error.get("param").is_some());
    assert_eq!(answer.request_id().as_bytes()[14], b'7', "UUIDv7");
    assert_eq!(answer.header("x-should-retry"), (status < 500 && status != 408).then_some("false"));
}

#[test]
fn every_route_refuses_in_order_and_then_answers() {
    let house = House::new();
    let at = house.gateway.address;
    let stranger = TestKey::new("stranger01", "019a0000-0000-7000-8000-0000000000a2");
    let barred = TestKey::new("barredbar1", TENANT).with(|r| r.allowed_models = vec!["other".into()]);
    house.put_key(&stranger);
    house.put_key(&barred);
    let unknown = TestKey::new("neverknown", TENANT);
    for path in [CHAT, "/v1/completions", "/v1/embeddings"] {
        refused(&Client::post(at, path, &[], BODY).finish(), 401, "missing_api_key");
        refused(&post(at, path, "sk-not-ours", BODY), 401, "invalid_api_key");
        refused(&post(at, path, &unknown.text, BODY), 401, "invalid_api_key");
        refused(&post(at, path, &stranger.text, BODY), 404, "model_not_found");
        refused(&post(at, path, &house.key.text, &BODY.replace("\"m\"", "\"x\"")), 404, "model_not_found");
        refused(&post(at, path, &barred.text, BODY), 403, "model_not_allowed");
        refused(&post(at, path, &house.key.text, r#"{"model":"m","model":"m"}"#), 400, "duplicate_key");
        refused(&get(at, path, &house.key.text), 405, "method_not_allowed");
        let answer = post(at, path, &house.key.text, BODY);
        assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, ANSWER, true));
        assert!(house.upstream.last().line.starts_with(&format!("POST {path} ")));
    }
    refused(&get(at, "/v1/models", ""), 401, "missing_api_key");
    refused(&post(at, "/v1/models", &house.key.text, ""), 405, "method_not_allowed");
    refused(&get(at, "/v1/nothing", &house.key.text), 404, "unknown_route");
    let ids =
        |key: &TestKey| get(at, "/v1/models", &key.text).json()["data"].as_array().unwrap().iter().map(|m| m["id"].to_string()).collect::<Vec<_>>();
    assert_eq!((ids(&house.key), ids(&barred), ids(&stranger)), (vec!["\"m\"".to_owned()], vec![], vec![]));
}

#[test]
fn keys_that_may_not_are_refused_and_say_why() {
    let house = House::new();
    let at = house.gateway.address;
    let mut last = 0;
    let mut make = |id: &str, change: &dyn Fn(&mut tenon_contract::KeyRecord)| {
        let key = TestKey::new(id, TENANT).with(change);
        last = house.control.put_key(key.record.clone());
        (key.text, last)
    };
    let (agent, _) = make("agentbase1", &|r| r.kind = KeyKind::Agent as i32);
    let (reader, _) = make("readonly01", &|r| r.may_call_models = false);
    let (revoked, _) = make("revoked001", &|r| r.revoked = true);
    let (expired, _) = make("expired001", &|r| r.expires_at_unix_ms = 1000);
    let (other, _) = make("otherhash1", &|r| r.secret_sha256 = vec![1; 32]);
    let (ceiling, _) = make("ceiling001", &|r| r.ceiling_markings = vec!["pii".into(), "export_controlled".into()]);
    let (cleared, revision) = make("cleared001", &|r| r.ceiling_markings = vec!["pii".into()]);
    house.gateway.wait_revision(revision);
    refused(&post(at, CHAT, &revoked, BODY), 401, "key_revoked");
    refused(&post(at, CHAT, &expired, BODY), 401, "key_expired");
    refused(&post(at, CHAT, &other, BODY), 401, "invalid_api_key");
    refused(&post(at, CHAT, &agent, BODY), 403, "key_may_not_call_models");
    refused(&post(at, CHAT, &reader, BODY), 403, "key_may_not_call_models");
    let answer = post(at, CHAT, &ceiling, BODY);
    refused(&answer, 403, "no_cleared_endpoint");
    assert!(answer.json()["error"]["repair"].as_str().unwrap().contains("ceiling"));
    assert_eq!(post(at, CHAT, &cleared, BODY).status, 200);
    assert_eq!(house.upstream.count(), 1, "what is refused reaches no upstream");
}

#[test]
fn bodies_that_cannot_be_trusted_are_refused() {
    let house = House::with(|setup| setup.with("TENON_GATEWAY_BODY_BYTES_MAX", 2000).with("TENON_GATEWAY_BODY_READ_MS", 100));
    let at = house.gateway.address;
    for (body, code) in [
        ("", "invalid_json"),
        ("[]", "invalid_json"),
        (r#"{"model":"m"} x"#, "invalid_json"),
        (r#"{"messages":[]}"#, "missing_parameter"),
        (r#"{"model":7}"#, "invalid_type"),
        (r#"{"mod\u0065l":"m"}"#, "escaped_key"),
    ] {
        refused(&house.chat(body), 400, code);
    }
    assert_eq!(house.chat(r#"{"model":7}"#).json()["error"]["param"], "model");
    refused(&house.chat(&format!(r#"{{"model":"m","x":"{}"}}"#, "y".repeat(2000))), 413, "request_too_large");
    let chunked = format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\nx-api-key: {}\r\ntransfer-encoding: chunked\r\n\r\n", house.key.text);
    let big = format!("{chunked}bb8\r\n{}\r\n0\r\n\r\n", "y".repeat(3000));
    refused(&Client::send(at, big.as_bytes()).finish(), 413, "request_too_large");
    let good = format!("{chunked}{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    assert_eq!(Client::send(at, good.as_bytes()).finish().status, 200);
    let never = format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\nx-api-key: {}\r\ncontent-length: 10\r\n\r\n{{", house.key.text);
    refused(&Client::send(at, never.as_bytes()).finish(), 408, "body_timeout");
}

#[test]
fn what_goes_up_is_the_callers_body_with_our_credential() {
    let house = House::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let body = r#" {"model" : "m", "x":[1,2,{"y":null}],"stream":false} "#;
    let headers = [
        ("authorization", &*format!("Bearer {}", house.key.text)),
        ("traceparent", &*parent),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("proxy-authorization", "Basic x"),
        ("x-request-id", "mine"),
    ];
    let answer = Client::post(house.gateway.address, CHAT, &headers, body).finish();
    let asked = house.upstream.last();
    assert_eq!(String::from_utf8(asked.body.clone()).unwrap(), body, "not a byte is changed");
    assert_eq!(asked.header("authorization"), Some("Bearer upstream-secret"));
    assert_eq!(asked.header("traceparent"), Some(&*parent));
    assert_eq!(asked.header("x-request-id"), Some(&*answer.request_id()));
    for hidden in ["cookie", "x-forwarded-for", "proxy-authorization", "x-api-key", "transfer-encoding"] {
        assert_eq!(asked.header(hidden), None, "{hidden}");
    }
    let usage = house.usage(&answer);
    assert_eq!((&*usage.trace_id, &*usage.tenant_id, &*usage.key_id, &*usage.endpoint_id, &*usage.model), (trace, TENANT, "keykeykey1", "e1", "m"));
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.reasoning_tokens), (11, 7, 4, 2));
    assert_eq!(
        (usage.outcome(), usage.usage_source(), usage.operation(), usage.http_status, usage.attempt),
        (Outcome::Completed, UsageSource::Engine, Operation::Chat, 200, 1)
    );
    assert_eq!(usage.gateway_id, tenon_testkit::GATEWAY_ID);
    assert!(usage.first_token_us > 0 && usage.duration_us >= usage.first_token_us && usage.started_at_unix_us > 0 && !usage.streamed);
}

#[test]
fn the_models_name_is_rewritten_for_the_endpoint() {
    let house = House::new();
    let mut renamed = model("m", "e1");
    renamed.routes[0].upstream_model = "org/real-name".into();
    house.gateway.wait_revision(house.control.put_routing(table(vec![endpoint("e1", &house.upstream.url())], vec![renamed])));
    let answer = house.chat(BODY);
    assert_eq!(house.upstream.last().json()["model"], "org/real-name");
    let usage = house.usage(&answer);
    assert_eq!((&*usage.model, &*usage.upstream_model), ("m", "org/real-name"));
}

#[test]
fn another_route_is_tried_when_one_cannot_be_reached() {
    let house = House::new();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let both = |weight| {
        let mut m = model("m", "e1");
        m.routes[0].weight = 1;
        m.routes.push(Route { endpoint_id: "dead".into(), weight, ..Default::default() });
        table(vec![endpoint("e1", &house.upstream.url()), endpoint("dead", &format!("http://{dead}/v1"))], vec![m])
    };
    house.gateway.wait_revision(house.control.put_routing(both(1_000_000)));
    let answer = house.chat(BODY);
    assert_eq!(answer.status, 200);
    let usage = house.usage(&answer);
    assert_eq!((&*usage.endpoint_id, usage.attempt), ("e1", 2));
    let only_dead = table(vec![endpoint("dead", &format!("http://{dead}/v1"))], vec![model("m", "dead")]);
    house.gateway.wait_revision(house.control.put_routing(only_dead));
    let answer = house.chat(BODY);
    refused(&answer, 502, "upstream_unreachable");
    assert_eq!((house.usage(&answer).outcome(), house.usage(&answer).http_status), (Outcome::UpstreamError, 502));
    let broken = table(vec![endpoint("e1", "ftp://h/v1")], vec![model("m", "e1")]);
    house.gateway.wait_revision(house.control.put_routing(broken));
    refused(&house.chat(BODY), 503, "no_usable_endpoint");
}

#[test]
fn a_pooled_connection_that_died_costs_nothing() {
    let house = House::new();
    house.upstream.say(|_| vec![Step::Send(json_answer(200, ANSWER)), Step::Close]);
    for _ in 0..20 {
        assert_eq!(house.chat(BODY).status, 200);
        // Long enough for the close to arrive: one that crosses the next request leaves nobody knowing what was read, and is not sent again.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(house.upstream.count(), 20, "and nothing is sent twice");
}

#[test]
fn upstream_refusals_are_passed_on_or_told_in_our_words() {
    let house = House::new();
    let says = |status: u16| house.upstream.say(move |_| vec![Step::Send(json_answer(status, r#"{"error":{"message":"theirs"}}"#))]);
    for status in [400, 404, 422, 429] {
        says(status);
        let answer = house.chat(BODY);
        assert_eq!((answer.status, answer.json()["error"]["message"].as_str()), (status, Some("theirs")));
        assert_eq!(house.usage(&answer).outcome(), Outcome::UpstreamError);
    }
    for (theirs, ours, code) in
        [(401, 502, "upstream_refused_gateway"), (500, 502, "upstream_error"), (503, 503, "upstream_unavailable"), (302, 502, "upstream_protocol")]
    {
        says(theirs);
        let answer = house.chat(BODY);
        refused(&answer, ours, code);
        assert_eq!((house.usage(&answer).outcome(), house.usage(&answer).http_status), (Outcome::UpstreamError, u32::from(ours)));
    }
    house.upstream.say(|_| vec![Step::Close]);
    refused(&house.chat(BODY), 502, "upstream_error");
    house.upstream.say(|_| vec![Step::Send(b"not http\r\n\r\n".to_vec()), Step::Close]);
    refused(&house.chat(BODY), 502, "upstream_error");
}

#[test]
fn deadlines_hold() {
    let house = House::new();
    let slow = Upstream::start(|_| vec![Step::UntilGone]);
    let mut impatient = endpoint("slow", &slow.url());
    impatient.headers_timeout_ms = 80;
    house.gateway.wait_revision(house.control.put_routing(table(vec![impatient], vec![model("m", "slow")])));
    let answer = house.chat(BODY);
    refused(&answer, 504, "upstream_headers_timeout");
    assert_eq!(house.usage(&answer).outcome(), Outcome::Timeout);
    tenon_testkit::wait_for("the upstream is told to stop", || slow.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1);
}
