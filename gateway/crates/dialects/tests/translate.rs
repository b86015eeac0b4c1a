//! Translations against golden files made from the official SDKs' types, and properties over all of them.
#![allow(clippy::unwrap_used, clippy::panic)]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tenon_dialects::translate::{Direction, EndpointOptions, NotServed, Translator};
use tenon_dialects::{Dialect, RequestFormat, Source};

const OPTIONS: EndpointOptions<'static> =
    EndpointOptions { model: None, output_tokens_max: 0, max_completion_tokens: false, continuous_usage: false };

fn direction(word: &Value) -> Direction {
    if word == "to_messages" { Direction::ChatToMessages } else { Direction::MessagesToChat }
}

fn caller_format(direction: Direction) -> RequestFormat {
    if direction == Direction::ChatToMessages { RequestFormat::Chat } else { RequestFormat::Message }
}

fn golden(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn request(direction: Direction, body: &Value, route: &EndpointOptions<'_>) -> Value {
    let text = direction.request(body.to_string().as_bytes(), route).unwrap_or_else(|error| panic!("{error}: {body}"));
    direction.endpoint_format().scan(&text).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn requests_are_translated_as_the_golden_files_say() {
    for case in golden(include_str!("golden/requests.json")) {
        let direction = direction(&case["direction"]);
        caller_format(direction).scan(case["from"].to_string().as_bytes()).unwrap();
        let translated = request(direction, &case["from"], &OPTIONS);
        // Spaces in the arguments of tools are those of the caller's text, which serde has taken out here.
        assert_eq!(translated.to_string().replace("\\\": ", "\\\":"), case["to"].to_string().replace("\\\": ", "\\\":"), "{}", case["name"]);
    }
}

#[test]
fn the_route_names_the_model_and_the_bounds() {
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    let route = EndpointOptions { model: Some("their\"s"), output_tokens_max: 77, ..OPTIONS };
    let translated = request(Direction::ChatToMessages, &chat, &route);
    assert_eq!((&translated["model"], &translated["max_tokens"]), (&json!("their\"s"), &json!(77)));
    let message = json!({"model": "m", "max_tokens": 3, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let route = EndpointOptions { max_completion_tokens: true, continuous_usage: true, ..OPTIONS };
    let translated = request(Direction::MessagesToChat, &message, &route);
    assert_eq!((&translated["max_completion_tokens"], &translated["max_tokens"]), (&json!(3), &Value::Null));
    assert_eq!(translated["stream_options"], json!({"include_usage": true, "continuous_usage_stats": true}));
}

#[test]
fn what_has_no_counterpart_is_refused_by_its_path() {
    for case in golden(include_str!("golden/refusals.json")) {
        let direction = direction(&case[0]);
        let mut body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]});
        for (key, value) in case[1].as_object().unwrap() {
            body[key] = value.clone();
        }
        let refused = direction.request(body.to_string().as_bytes(), &OPTIONS).expect_err(&body.to_string());
        assert_eq!((refused.code.text(), refused.path.as_str()), (case[2].as_str().unwrap(), case[3].as_str().unwrap()), "{body}");
    }
}

#[test]
fn answers_are_translated_as_the_golden_files_say() {
    for case in golden(include_str!("golden/answers.json")) {
        let translated = direction(&case["direction"]).answer(case["from"].to_string().as_bytes(), 7).unwrap();
        let translated: Value = serde_json::from_slice(&translated).unwrap();
        assert_eq!(translated.to_string().replace("\\\": ", "\\\":"), case["to"].to_string().replace("\\\": ", "\\\":"), "{}", case["name"]);
    }
    for (direction, text) in [
        (Direction::ChatToMessages, r#"{"content":[{"type":"server_tool_use"}]}"#),
        (Direction::ChatToMessages, "<html>"),
        (Direction::MessagesToChat, r#"{"choices":[]}"#),
        (Direction::MessagesToChat, r#"{"choices":[{"message":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"a\""}}]}}]}"#),
    ] {
        assert!(direction.answer(text.as_bytes(), 0).is_err(), "{text}");
    }
}

fn run(direction: Direction, chunks: &[&[u8]]) -> (String, Translator) {
    let mut translator = Translator::new(direction, true, 7);
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(&translator.translate(&Bytes::copy_from_slice(chunk)).unwrap());
    }
    out.extend_from_slice(&translator.finish().unwrap());
    (String::from_utf8(out).unwrap(), translator)
}

const STREAMS: [(Direction, &str, &str); 2] = [
    (Direction::ChatToMessages, include_str!("golden/stream_to_chunks.txt"), include_str!("golden/stream_to_chunks.expected.txt")),
    (Direction::MessagesToChat, include_str!("golden/stream_to_events.txt"), include_str!("golden/stream_to_events.expected.txt")),
];

#[test]
fn streams_cut_at_every_byte_are_translated_as_the_golden_files_say() {
    for (direction, from, to) in STREAMS {
        for size in 1..from.len() {
            let chunks: Vec<&[u8]> = from.as_bytes().chunks(size).collect();
            let (translated, translator) = run(direction, &chunks);
            assert_eq!(translated, to, "in pieces of {size}");
            let (usage, source) = translator.progress().measured();
            assert_eq!((usage.input, usage.output, usage.cached, usage.cache_write, source), (17, 9, 8, 4, Source::Engine));
            assert!(translator.progress().done && !translator.progress().error);
        }
    }
}

#[test]
fn a_stream_that_goes_wrong_says_so() {
    let mut translator = Translator::new(Direction::ChatToMessages, true, 7);
    let error = b"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    let out = translator.translate(&Bytes::from_static(error)).unwrap();
    let frame: Value = serde_json::from_slice(out.strip_prefix(b"data: ").unwrap()).unwrap();
    assert_eq!(
        (&frame["error"]["message"], &frame["error"]["code"], translator.progress().error),
        (&json!("busy"), &json!("overloaded_error"), true)
    );
    let mut translator = Translator::new(Direction::MessagesToChat, true, 7);
    let out = translator.translate(&Bytes::from_static(b"data: {\"error\":{\"message\":\"busy\",\"type\":\"x\",\"code\":\"c\"}}\n\n")).unwrap();
    let text = String::from_utf8(out.to_vec()).unwrap();
    let frame: Value = serde_json::from_str(text.strip_prefix("event: error\ndata: ").unwrap()).unwrap();
    assert_eq!((&frame["type"], &frame["error"]["message"], &frame["error"]["code"]), (&json!("error"), &json!("busy"), &json!("c")));
    for bad in ["data: {\n\n", "data: {\"choices\":[{\"index\":1,\"delta\":{}}]}\n\n", "data: \u{e9}\n\n"] {
        let mut translator = Translator::new(Direction::MessagesToChat, true, 7);
        assert!(translator.translate(&Bytes::copy_from_slice(bad.as_bytes())).is_err(), "{bad}");
    }
    let mut translator = Translator::new(Direction::MessagesToChat, true, 7);
    let long = Bytes::from(vec![b'x'; 600_000]);
    assert!(translator.translate(&long).is_ok() && translator.translate(&long).is_err());
}

#[test]
fn a_stream_without_done_is_closed_when_its_usage_came() {
    let (_, from, to) = STREAMS[1];
    let (translated, _) = run(Direction::MessagesToChat, &[from.strip_suffix("data: [DONE]\n\n").unwrap().as_bytes()]);
    assert_eq!(translated, to);
    let cut = &from[..from.find("\"choices\":[],").unwrap()];
    let (translated, translator) = run(Direction::MessagesToChat, &[&cut.as_bytes()[..cut.rfind("data:").unwrap()]]);
    assert!(!translated.contains("message_stop") && !translator.progress().is_whole());
}

#[test]
fn refusals_of_endpoints_keep_their_sentence() {
    let theirs = br#"{"type":"error","error":{"type":"invalid_request_error","message":"too \"long\""},"request_id":"r"}"#;
    let ours: Value = serde_json::from_slice(&Direction::ChatToMessages.error(400, theirs, "id")).unwrap();
    assert_eq!(
        ours,
        json!({"error": {"message": "too \"long\"", "type": "invalid_request_error", "param": null, "code": "invalid_request_error", "request_id": "id"}})
    );
    let theirs = br#"{"error":{"message":"no","type":"x","param":"messages","code":"context_length_exceeded"}}"#;
    let ours: Value = serde_json::from_slice(&Direction::MessagesToChat.error(404, theirs, "id")).unwrap();
    let error = json!({"type": "not_found_error", "message": "no", "param": "messages", "code": "context_length_exceeded"});
    assert_eq!(ours, json!({"type": "error", "error": error, "request_id": "id"}));
    for direction in [Direction::ChatToMessages, Direction::MessagesToChat] {
        for odd in [&b"<html>"[..], b"", b"\xff", b"{\"error\":null}", b"{\"error\":\"plain\"}", b"[]"] {
            assert!(serde_json::from_slice::<Value>(&direction.error(500, odd, "id")).is_ok());
        }
    }
}

#[test]
fn only_chat_and_messages_are_translated() {
    assert_eq!(Direction::between(RequestFormat::Chat, Dialect::OpenAi), Ok(None));
    assert_eq!(Direction::between(RequestFormat::Chat, Dialect::Anthropic), Ok(Some(Direction::ChatToMessages)));
    assert_eq!(Direction::between(RequestFormat::Message, Dialect::OpenAi), Ok(Some(Direction::MessagesToChat)));
    assert_eq!(Direction::between(RequestFormat::CountTokens, Dialect::Anthropic), Ok(None));
    for format in [RequestFormat::Completion, RequestFormat::Embedding, RequestFormat::Response, RequestFormat::Rerank] {
        assert_eq!(Direction::between(format, Dialect::Anthropic), Err(NotServed));
    }
    assert_eq!(Direction::between(RequestFormat::CountTokens, Dialect::OpenAi), Err(NotServed));
}

fn any_text() -> impl Strategy<Value = Value> {
    ".{1,20}".prop_map(Value::from)
}

fn any_turn() -> impl Strategy<Value = Vec<Value>> {
    prop_oneof![
        any_text().prop_map(|text| vec![json!({"role": "user", "content": text})]),
        (any_text(), any_text()).prop_map(|(a, b)| vec![json!({"role": "user", "content": [{"type": "text", "text": a}, {"type": "text", "text": b}]})]),
        "[A-Za-z0-9+/]{0,30}".prop_map(
            |data| vec![json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}}]})]
        ),
        any_text().prop_map(|text| vec![json!({"role": "assistant", "content": text})]),
        (any_text(), any_text(), "[a-z]{1,6}", any_text()).prop_map(|(id, name, key, value)| {
            let arguments = json!({ key: value }).to_string();
            vec![
                json!({"role": "assistant", "content": null, "tool_calls": [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]}),
                json!({"role": "tool", "tool_call_id": id, "content": value}),
            ]
        }),
    ]
}

proptest! {
    /// There and back again: the conversation is the same.
    #[test]
    fn a_conversation_survives_both_translations(turns in prop::collection::vec(any_turn(), 1..6), stream in any::<bool>(), max in 1..9999_u32) {
        let messages: Vec<Value> = turns.into_iter().flatten().collect();
        let chat = json!({"model": "m", "max_tokens": max, "messages": messages});
        let mut chat = chat;
        if stream {
            chat["stream"] = json!(true);
            chat["stream_options"] = json!({"include_usage": true});
        }
        let message = request(Direction::ChatToMessages, &chat, &OPTIONS);
        prop_assert_eq!(request(Direction::MessagesToChat, &message, &OPTIONS), chat);
    }

    #[test]
    fn any_split_of_a_stream_gives_the_same(which in 0..2_usize, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12), end in prop::sample::select(vec!["\n", "\r\n", "\r"])) {
        let (direction, from, to) = STREAMS[which];
        let from = from.replace('\n', end);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(from.len() + 1)).chain([0, from.len()]).collect();
        at.sort_unstable();
        let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &from.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(run(direction, &chunks).0, to);
    }

    /// Whatever is translated is JSON; whatever is damaged is refused, not a panic.
    #[test]
    fn damage_is_refused_or_stays_json(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..4), cut in 0_usize..4) {
        let cases = golden(include_str!("golden/requests.json"));
        let case = &cases[which.index(cases.len())];
        let mut text = case["from"].to_string().into_bytes();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, with);
        let direction = direction(&case["direction"]);
        if caller_format(direction).scan(&text).is_ok() && let Ok(out) = direction.request(&text, &OPTIONS) {
            let json: serde_json::Result<Box<serde_json::value::RawValue>> = serde_json::from_slice(&out);
            prop_assert!(json.is_ok(), "{}", String::from_utf8_lossy(&out));
        }
    }
}
