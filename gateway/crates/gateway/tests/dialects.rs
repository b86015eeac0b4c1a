//! Callers of one dialect, endpoints of another: what goes up, what comes down, what is billed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::{Value, json};
use support::{Stack, endpoint, model, table};
use tenon_contract::{AbortBilling, Endpoint, Outcome, Protocol, UsageSource};
use tenon_testkit::{Answer, Client, Step, json_answer, sse_head};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const MESSAGE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"x","content":[{"type":"text","text":"yo"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":5,"cache_read_input_tokens":8,"cache_creation_input_tokens":4,"output_tokens":9}}"#;
const EVENTS: &str = include_str!("../../dialects/tests/golden/stream_to_chunks.txt");
const CHUNKS: &str = include_str!("../../dialects/tests/golden/stream_to_chunks.expected.txt");

/// A stack whose endpoint is changed.
fn stack(change: impl FnOnce(&mut Endpoint)) -> Stack {
    let stack = Stack::new();
    let mut changed = endpoint("e1", &stack.upstream.url());
    change(&mut changed);
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![changed], vec![model("m", "e1")])));
    stack
}

fn anthropic() -> Stack {
    stack(|endpoint| endpoint.protocol = Protocol::Anthropic as i32)
}

fn post(stack: &Stack, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[("x-api-key", &*stack.key.text)], headers].concat();
    whole(Client::post(stack.gateway.address, path, &headers, body))
}

fn whole(mut client: Client) -> Answer {
    let mut answer = client.head();
    client.read_body(&mut answer);
    answer
}

fn kinds(stack: &Stack, answer: &Answer) -> (u64, u64, u64, u64, UsageSource, Outcome) {
    let usage = stack.usage(answer);
    (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.usage_source(), usage.outcome())
}

#[test]
fn chat_reaches_an_anthropic_endpoint_as_messages() {
    let stack = anthropic();
    stack.upstream.respond(|_| vec![Step::Send(json_answer(200, MESSAGE))]);
    let answer = post(&stack, CHAT, &[("anthropic-beta", "not-for-this-dialect"), ("openai-organization", "theirs")], support::BODY);
    let request = stack.upstream.last();
    assert_eq!(request.line, "POST /v1/messages HTTP/1.1");
    assert_eq!((request.header("x-api-key"), request.header("authorization")), (Some("upstream-secret"), None));
    assert_eq!((request.header("anthropic-version"), request.header("anthropic-beta")), (Some("2023-06-01"), None));
    assert_eq!(request.header("openai-organization"), None);
    assert_eq!(request.json(), json!({"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "hi"}]}));
    assert_eq!((answer.status, &answer.json()["choices"][0]["message"]["content"]), (200, &json!("yo")));
    assert_eq!(kinds(&stack, &answer), (17, 9, 8, 4, UsageSource::Engine, Outcome::Completed));
}

#[test]
fn a_translated_stream_is_billed_by_the_endpoints_numbers() {
    let stack = anthropic();
    stack.upstream.respond(|_| {
        let pieces = EVENTS.as_bytes().chunks(100).flat_map(|piece| [Step::Send(piece.to_vec())]);
        [Step::Send(sse_head())].into_iter().chain(pieces).chain([Step::Close]).collect()
    });
    let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}"#;
    let answer = post(&stack, CHAT, &[], body);
    let created = |text: &str| text.lines().map(|line| line.split(",\"created\":").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(created(&answer.text()), created(CHUNKS));
    assert_eq!(kinds(&stack, &answer), (17, 9, 8, 4, UsageSource::Engine, Outcome::Completed));
    // Broken off: the input is known, the output counted, and the stream does not look complete.
    stack.upstream.respond(|_| {
        let cut = EVENTS.split("event: message_delta").next().unwrap();
        vec![Step::Send(sse_head()), Step::Send(cut.as_bytes().to_vec()), Step::Close]
    });
    let answer = post(&stack, CHAT, &[], body);
    assert!(answer.text().contains("upstream_cut") && !answer.text().contains("[DONE]"));
    let (input, output, _, _, source, outcome) = kinds(&stack, &answer);
    assert_eq!((input, output > 0, source, outcome), (17, true, UsageSource::Estimated, Outcome::Cut));
    // What is no stream of messages is no stream of chunks.
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(b"data: {oops\n\n".to_vec()), Step::UntilGone]);
    assert!(post(&stack, CHAT, &[], body).text().contains("upstream_protocol"));
}

#[test]
fn messages_reach_an_openai_endpoint_as_chat() {
    let stack = Stack::new();
    let body = r#"{"model":"m","max_tokens":5,"system":"be brief","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = post(&stack, MESSAGES, &[("anthropic-version", "2023-06-01"), ("anthropic-beta", "x")], body);
    let request = stack.upstream.last();
    assert_eq!((request.line.as_str(), request.header("authorization")), ("POST /v1/chat/completions HTTP/1.1", Some("Bearer upstream-secret")));
    assert_eq!((request.header("anthropic-version"), request.header("anthropic-beta")), (None, None));
    assert_eq!(request.json()["messages"][0], json!({"role": "system", "content": "be brief"}));
    let body_json = answer.json();
    assert_eq!(
        (&body_json["type"], &body_json["content"][0]["text"], &body_json["usage"]["input_tokens"]),
        (&json!("message"), &json!("yo"), &json!(7))
    );
    assert_eq!(kinds(&stack, &answer), (11, 7, 4, 0, UsageSource::Engine, Outcome::Completed));
    // The endpoint's refusal, and ours.
    stack.upstream.respond(|_| vec![Step::Send(json_answer(400, r#"{"error":{"message":"too long","type":"x","code":"context_length_exceeded"}}"#))]);
    let answer = post(&stack, MESSAGES, &[], body);
    let body_json = answer.json();
    assert_eq!((answer.status, &body_json["type"], &body_json["error"]["message"]), (400, &json!("error"), &json!("too long")));
    assert_eq!((&body_json["error"]["type"], &body_json["error"]["code"]), (&json!("invalid_request_error"), &json!("context_length_exceeded")));
    assert_eq!(stack.usage(&answer).outcome(), Outcome::UpstreamError);
}

#[test]
fn untranslatable_requests_are_refused_by_name_and_never_sent() {
    let stack = anthropic();
    let answer = post(&stack, CHAT, &[], r#"{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]}"#);
    let body_json = answer.json();
    assert_eq!((answer.status, answer.header("x-should-retry")), (400, Some("false")));
    assert_eq!(
        (&body_json["error"]["code"], &body_json["error"]["param"]),
        (&json!("untranslatable_parameter"), &json!("messages[0].content[0].type"))
    );
    for (path, member) in [("/v1/embeddings", "input"), ("/v1/responses", "input"), ("/v1/completions", "prompt"), ("/v1/rerank", "query")] {
        let answer = post(&stack, path, &[], &format!(r#"{{"model":"m","{member}":"a"}}"#));
        assert_eq!((answer.status, answer.code().as_str()), (400, "operation_not_served"), "{path}");
    }
    assert_eq!(stack.upstream.count(), 0);
    let stack = Stack::new();
    let answer = post(&stack, "/v1/messages/count_tokens", &[], r#"{"model":"m","messages":[]}"#);
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!("operation_not_served")));
    let answer = post(&stack, "/v1/responses", &[], r#"{"model":"m","input":"a","previous_response_id":"resp_1"}"#);
    assert_eq!((answer.status, answer.code().as_str()), (400, "provider_state_not_served"));
}

#[test]
fn what_an_endpoint_lists_passes_as_it_is() {
    let stack = stack(|endpoint| endpoint.operations = vec!["chat".into(), "message".into(), "count_tokens".into()]);
    stack.upstream.respond(|_| vec![Step::Send(json_answer(200, MESSAGE))]);
    let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"context_management":{"edits":[1]}}"#;
    let answer = post(&stack, MESSAGES, &[("anthropic-beta", "theirs")], body);
    let request = stack.upstream.last();
    assert_eq!((answer.text().as_str(), String::from_utf8(request.body.clone()).unwrap().as_str()), (MESSAGE, body));
    assert_eq!((request.line.as_str(), request.header("anthropic-beta")), ("POST /v1/messages HTTP/1.1", Some("theirs")));
    assert_eq!(kinds(&stack, &answer), (17, 9, 8, 4, UsageSource::Engine, Outcome::Completed));
    stack.upstream.respond(|_| vec![Step::Send(json_answer(200, r#"{"input_tokens":14}"#))]);
    let answer = post(&stack, "/v1/messages/count_tokens", &[], r#"{"model":"m","messages":[]}"#);
    assert_eq!((answer.json(), stack.usage(&answer).input_tokens), (json!({"input_tokens": 14}), 0));
    assert_eq!(post(&stack, "/v1/embeddings", &[], r#"{"model":"m","input":"a"}"#).code(), "operation_not_served");
}

#[test]
fn continuous_usage_is_requested_where_supported() {
    let stack = stack(|endpoint| endpoint.abort_billing = AbortBilling::Continuous as i32);
    let chunk = |n: u64| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{n}}}}}\n\n")
    };
    let text = chunk(3) + &chunk(6);
    stack.upstream.respond(move |_| vec![Step::Send(sse_head()), Step::Send(text.clone().into_bytes()), Step::Close]);
    let answer = stack.chat(support::STREAM_BODY);
    let options = stack.upstream.last().json()["stream_options"].clone();
    assert_eq!(options, json!({"include_usage": true, "continuous_usage_stats": true}));
    assert_eq!(kinds(&stack, &answer), (9, 6, 0, 0, UsageSource::Continuous, Outcome::Cut));
}

#[test]
fn a_stream_without_done_but_with_usage_is_complete() {
    let stack = Stack::new();
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(support::frame("a")), Step::Send(support::USAGE_FRAME.to_vec()), Step::Close]);
    let answer = stack.chat(support::STREAM_BODY);
    assert!(answer.complete && !answer.text().contains("error"));
    assert_eq!(kinds(&stack, &answer), (9, 2, 0, 0, UsageSource::Engine, Outcome::Completed));
}

#[test]
fn models_and_errors_have_the_callers_format() {
    let stack = Stack::new();
    let get_at = |path: &str, headers: &[(&str, &str)]| -> Value {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        whole(Client::send(stack.gateway.address, format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n{headers}\r\n").as_bytes())).json()
    };
    let get = |headers: &[(&str, &str)]| get_at("/v1/models", headers);
    let key = ("x-api-key", &*stack.key.text);
    assert_eq!(get(&[key])["object"], "list");
    let listed = get(&[key, ("anthropic-version", "2023-06-01")]);
    assert_eq!((&listed["data"][0]["type"], &listed["has_more"], &listed["last_id"]), (&json!("model"), &json!(false), &json!("m")));
    // Each entry has an address, however its name is written there.
    assert_eq!(get_at("/v1/models/%6D", &[key]), get(&[key])["data"][0]);
    assert_eq!(get_at("/v1/models/m", &[key, ("anthropic-version", "2023-06-01")]), listed["data"][0]);
    for wrong in ["m/", "m%2", "m%00", "%ff", "+m", "n"] {
        assert_eq!(get_at(&format!("/v1/models/{wrong}"), &[key])["error"]["code"], "model_not_found", "{wrong}");
    }
    assert_eq!(get_at("/v1/models/", &[key])["error"]["code"], "unknown_route");
    let refused = get(&[("anthropic-version", "2023-06-01")]);
    assert_eq!((&refused["type"], &refused["error"]["type"]), (&json!("error"), &json!("authentication_error")));
    let answer = post(&stack, MESSAGES, &[], r#"{"model":"m","messages":[]}"#);
    let body_json = answer.json();
    assert_eq!((&body_json["error"]["code"], body_json["request_id"].as_str()), (&json!("missing_parameter"), Some(&*answer.request_id())));
}
