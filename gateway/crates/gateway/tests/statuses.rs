//! Statuses of each route, in order: 401, 404, 403, 400, then success.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{ANSWER, BODY, CHAT, Stack, TENANT, endpoint, model, table};
use tenon_contract::{KeyKind, KeyRecord, Operation, Outcome, Route, UsageSource};
use tenon_testkit::{Client, Step, TestKey, Upstream, get, json_answer, post};

fn refused(answer: &tenon_testkit::Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!(error["request_id"], answer.request_id());
    assert!(error["message"].as_str().is_some_and(|text| text.len() > 10) && error["type"].is_string() && error.get("param").is_some());
    assert_eq!(answer.request_id().as_bytes()[14], b'7', "UUIDv7");
    assert_eq!(answer.header("x-should-retry"), (status < 500 && status != 408).then_some("false"));
}

const PATHS: [&str; 3] = [CHAT, "/v1/completions", "/v1/embeddings"];

/// A key of the tenant with these changes, known to the gateway.
fn key(stack: &Stack, id: &str, change: impl FnOnce(&mut KeyRecord)) -> TestKey {
    let key = TestKey::new(id, TENANT).with(change);
    stack.put_key(&key);
    key
}

#[test]
fn a_call_without_a_key_is_401() {
    let stack = Stack::new();
    for path in PATHS {
        refused(&Client::post(stack.gateway.address, path, &[], BODY).finish(), 401, "missing_api_key");
    }
    refused(&get(stack.gateway.address, "/v1/models", ""), 401, "missing_api_key");
}

#[test]
fn an_unknown_key_is_401() {
    let stack = Stack::new();
    let unknown = TestKey::new("neverknown", TENANT);
    let wrong_secret = key(&stack, "otherhash1", |record| record.secret_sha256 = vec![1; 32]);
    for path in PATHS {
        for text in ["sk-not-ours", &unknown.text, &wrong_secret.text] {
            refused(&post(stack.gateway.address, path, text, BODY), 401, "invalid_api_key");
        }
    }
}

#[test]
fn a_revoked_key_is_401() {
    let stack = Stack::new();
    let revoked = key(&stack, "revoked001", |record| record.revoked = true);
    refused(&post(stack.gateway.address, CHAT, &revoked.text, BODY), 401, "key_revoked");
}

#[test]
fn an_expired_key_is_401() {
    let stack = Stack::new();
    let expired = key(&stack, "expired001", |record| record.expires_at_unix_ms = 1000);
    refused(&post(stack.gateway.address, CHAT, &expired.text, BODY), 401, "key_expired");
}

#[test]
fn a_model_that_the_tenant_does_not_have_is_404() {
    let stack = Stack::new();
    let stranger = TestKey::new("stranger01", "019a0000-0000-7000-8000-0000000000a2");
    stack.put_key(&stranger);
    for path in PATHS {
        refused(&post(stack.gateway.address, path, &stranger.text, BODY), 404, "model_not_found");
        refused(&post(stack.gateway.address, path, &stack.key.text, &BODY.replace("\"m\"", "\"x\"")), 404, "model_not_found");
    }
}

#[test]
fn an_unknown_route_is_404() {
    let stack = Stack::new();
    refused(&get(stack.gateway.address, "/v1/nothing", &stack.key.text), 404, "unknown_route");
}

#[test]
fn a_wrong_method_is_405() {
    let stack = Stack::new();
    for path in PATHS {
        refused(&get(stack.gateway.address, path, &stack.key.text), 405, "method_not_allowed");
    }
    refused(&post(stack.gateway.address, "/v1/models", &stack.key.text, ""), 405, "method_not_allowed");
}

#[test]
fn a_key_that_may_not_call_models_is_403() {
    let stack = Stack::new();
    let agent = key(&stack, "agentbase1", |record| record.kind = KeyKind::Agent as i32);
    let reader = key(&stack, "readonly01", |record| record.may_call_models = false);
    for key in [agent, reader] {
        refused(&post(stack.gateway.address, CHAT, &key.text, BODY), 403, "key_may_not_call_models");
    }
    assert_eq!(stack.upstream.count(), 0, "no refused call reaches the upstream");
}

#[test]
fn a_model_outside_the_keys_scope_is_403() {
    let stack = Stack::new();
    let barred = key(&stack, "barredbar1", |record| record.allowed_models = vec!["other".into()]);
    for path in PATHS {
        refused(&post(stack.gateway.address, path, &barred.text, BODY), 403, "model_not_allowed");
    }
}

#[test]
fn an_endpoint_without_clearance_for_the_ceiling_is_403() {
    let stack = Stack::new();
    let ceiling = key(&stack, "ceiling001", |record| record.ceiling_markings = vec!["pii".into(), "export_controlled".into()]);
    let answer = post(stack.gateway.address, CHAT, &ceiling.text, BODY);
    refused(&answer, 403, "no_cleared_endpoint");
    assert!(answer.json()["error"]["repair"].as_str().unwrap().contains("ceiling"));
    assert_eq!(stack.upstream.count(), 0, "no refused call reaches the upstream");
}

#[test]
fn a_body_that_parsers_could_read_differently_is_400() {
    let stack = Stack::new();
    for (body, code) in [
        ("", "invalid_json"),
        ("[]", "invalid_json"),
        (r#"{"model":"m"} x"#, "invalid_json"),
        (r#"{"messages":[]}"#, "missing_parameter"),
        (r#"{"model":7}"#, "invalid_type"),
        (r#"{"mod\u0065l":"m"}"#, "escaped_key"),
    ] {
        refused(&stack.chat(body), 400, code);
    }
    for path in PATHS {
        refused(&post(stack.gateway.address, path, &stack.key.text, r#"{"model":"m","model":"m"}"#), 400, "duplicate_key");
    }
    assert_eq!(stack.chat(r#"{"model":7}"#).json()["error"]["param"], "model");
}

/// The head of a chunked request.
fn chunked_head(stack: &Stack) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\nx-api-key: {}\r\ntransfer-encoding: chunked\r\n\r\n", stack.key.text)
}

#[test]
fn a_body_that_is_too_large_is_413() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_BODY_BYTES_MAX", 2000));
    refused(&stack.chat(&format!(r#"{{"model":"m","x":"{}"}}"#, "y".repeat(2000))), 413, "request_too_large");
    let large = format!("{}bb8\r\n{}\r\n0\r\n\r\n", chunked_head(&stack), "y".repeat(3000));
    refused(&Client::send(stack.gateway.address, large.as_bytes()).finish(), 413, "request_too_large");
}

#[test]
fn a_body_that_does_not_arrive_is_408() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_BODY_READ_MS", 100));
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\nx-api-key: {}\r\ncontent-length: 10\r\n\r\n{{", stack.key.text);
    refused(&Client::send(stack.gateway.address, head.as_bytes()).finish(), 408, "body_timeout");
}

#[test]
fn a_good_call_is_200() {
    let stack = Stack::new();
    for path in PATHS {
        let answer = post(stack.gateway.address, path, &stack.key.text, BODY);
        assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, ANSWER, true));
        assert!(stack.upstream.last().line.starts_with(&format!("POST {path} ")));
    }
}

#[test]
fn a_chunked_body_is_200() {
    let stack = Stack::new();
    let chunked = format!("{}{:x}\r\n{BODY}\r\n0\r\n\r\n", chunked_head(&stack), BODY.len());
    assert_eq!(Client::send(stack.gateway.address, chunked.as_bytes()).finish().status, 200);
}

#[test]
fn an_endpoint_cleared_for_the_ceiling_is_200() {
    let stack = Stack::new();
    let cleared = key(&stack, "cleared001", |record| record.ceiling_markings = vec!["pii".into()]);
    assert_eq!(post(stack.gateway.address, CHAT, &cleared.text, BODY).status, 200);
}

#[test]
fn the_model_list_has_what_the_key_may_call() {
    let stack = Stack::new();
    let barred = key(&stack, "barredbar1", |record| record.allowed_models = vec!["other".into()]);
    let stranger = TestKey::new("stranger01", "019a0000-0000-7000-8000-0000000000a2");
    stack.put_key(&stranger);
    let list = |key: &TestKey| get(stack.gateway.address, "/v1/models", &key.text).json()["data"].clone();
    assert_eq!(list(&stack.key)[0]["id"], "m");
    assert_eq!((list(&barred), list(&stranger)), (serde_json::json!([]), serde_json::json!([])));
}

#[test]
fn what_goes_up_is_the_callers_body_with_our_credential() {
    let stack = Stack::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let body = r#" {"model" : "m", "x":[1,2,{"y":null}],"stream":false} "#;
    let headers = [
        ("authorization", &*format!("Bearer {}", stack.key.text)),
        ("traceparent", &*parent),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("proxy-authorization", "Basic x"),
        ("x-request-id", "mine"),
    ];
    let answer = Client::post(stack.gateway.address, CHAT, &headers, body).finish();
    let request = stack.upstream.last();
    assert_eq!(String::from_utf8(request.body.clone()).unwrap(), body, "not a byte is changed");
    assert_eq!(request.header("authorization"), Some("Bearer upstream-secret"));
    assert_eq!(request.header("traceparent"), Some(&*parent));
    assert_eq!(request.header("x-request-id"), Some(&*answer.request_id()));
    for hidden in ["cookie", "x-forwarded-for", "proxy-authorization", "x-api-key", "transfer-encoding"] {
        assert_eq!(request.header(hidden), None, "{hidden}");
    }
    let usage = stack.usage(&answer);
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
    let stack = Stack::new();
    let mut renamed = model("m", "e1");
    renamed.routes[0].upstream_model = "org/real-name".into();
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![endpoint("e1", &stack.upstream.url())], vec![renamed])));
    let answer = stack.chat(BODY);
    assert_eq!(stack.upstream.last().json()["model"], "org/real-name");
    let usage = stack.usage(&answer);
    assert_eq!((&*usage.model, &*usage.upstream_model), ("m", "org/real-name"));
}

#[test]
fn another_endpoint_is_tried_when_one_is_unreachable() {
    let stack = Stack::new();
    let dead = tenon_testkit::unused_address();
    let mut routed = model("m", "e1");
    routed.routes[0].weight = 1;
    routed.routes.push(Route { endpoint_id: "dead".into(), weight: 1_000_000, ..Default::default() });
    let endpoints = vec![endpoint("e1", &stack.upstream.url()), endpoint("dead", &format!("http://{dead}/v1"))];
    stack.gateway.wait_revision(stack.control.put_routing(table(endpoints, vec![routed])));
    let answer = stack.chat(BODY);
    assert_eq!(answer.status, 200);
    let usage = stack.usage(&answer);
    assert_eq!((&*usage.endpoint_id, usage.attempt), ("e1", 2));
}

#[test]
fn an_unreachable_endpoint_is_502() {
    let stack = Stack::new();
    let dead = tenon_testkit::unused_address();
    let table = table(vec![endpoint("dead", &format!("http://{dead}/v1"))], vec![model("m", "dead")]);
    stack.gateway.wait_revision(stack.control.put_routing(table));
    let answer = stack.chat(BODY);
    refused(&answer, 502, "upstream_unreachable");
    assert_eq!((stack.usage(&answer).outcome(), stack.usage(&answer).http_status), (Outcome::UpstreamError, 502));
}

#[test]
fn an_endpoint_with_a_wrong_address_is_503() {
    let stack = Stack::new();
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![endpoint("e1", "ftp://h/v1")], vec![model("m", "e1")])));
    refused(&stack.chat(BODY), 503, "no_usable_endpoint");
}

#[test]
fn a_pooled_connection_that_died_costs_nothing() {
    let stack = Stack::new();
    stack.upstream.respond(|_| vec![Step::Send(json_answer(200, ANSWER)), Step::Close]);
    for _ in 0..20 {
        assert_eq!(stack.chat(BODY).status, 200);
        // Long enough for the close to arrive: a request that crosses the close may have been read, so it is not sent again.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(stack.upstream.count(), 20, "and nothing is sent twice");
}

/// The upstream answers with this status from now on.
fn respond(stack: &Stack, status: u16) {
    stack.upstream.respond(move |_| vec![Step::Send(json_answer(status, r#"{"error":{"message":"theirs"}}"#))]);
}

#[test]
fn an_endpoints_refusal_of_the_request_is_passed_on() {
    let stack = Stack::new();
    for status in [400, 404, 422, 429] {
        respond(&stack, status);
        let answer = stack.chat(BODY);
        assert_eq!((answer.status, answer.json()["error"]["message"].as_str()), (status, Some("theirs")));
        assert_eq!(stack.usage(&answer).outcome(), Outcome::UpstreamError);
    }
}

#[test]
fn an_endpoints_own_failure_has_our_code() {
    let stack = Stack::new();
    for (theirs, ours, code) in
        [(401, 502, "upstream_refused_gateway"), (500, 502, "upstream_error"), (503, 503, "upstream_unavailable"), (302, 502, "upstream_protocol")]
    {
        respond(&stack, theirs);
        let answer = stack.chat(BODY);
        refused(&answer, ours, code);
        assert_eq!((stack.usage(&answer).outcome(), stack.usage(&answer).http_status), (Outcome::UpstreamError, u32::from(ours)));
    }
}

#[test]
fn an_endpoint_that_does_not_answer_in_http_is_502() {
    let stack = Stack::new();
    stack.upstream.respond(|_| vec![Step::Close]);
    refused(&stack.chat(BODY), 502, "upstream_error");
    stack.upstream.respond(|_| vec![Step::Send(b"not http\r\n\r\n".to_vec()), Step::Close]);
    refused(&stack.chat(BODY), 502, "upstream_error");
}

#[test]
fn an_endpoint_beyond_its_deadline_is_504() {
    let stack = Stack::new();
    let slow = Upstream::start(|_| vec![Step::UntilGone]);
    let mut impatient = endpoint("slow", &slow.url());
    impatient.headers_timeout_ms = 80;
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![impatient], vec![model("m", "slow")])));
    let answer = stack.chat(BODY);
    refused(&answer, 504, "upstream_headers_timeout");
    assert_eq!(stack.usage(&answer).outcome(), Outcome::Timeout);
    tenon_testkit::wait_for("the upstream's call is cancelled", || slow.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1);
}
