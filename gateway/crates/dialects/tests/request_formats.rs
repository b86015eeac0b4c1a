//! Heads and observers of every form.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::json;
use tenon_dialects::{Media, Observer, RequestFormat, ScanError, Source, StreamProgress, Usage, completions};

const FORMATS: [RequestFormat; 7] = [
    RequestFormat::Chat,
    RequestFormat::Completion,
    RequestFormat::Embedding,
    RequestFormat::Response,
    RequestFormat::Message,
    RequestFormat::CountTokens,
    RequestFormat::Rerank,
];

#[test]
fn every_form_is_as_strict() {
    for format in FORMATS {
        let with = |extra: &str| format!(r#"{{"model":"a","max_tokens":1{extra}}}"#);
        assert!(format.scan(with("").as_bytes()).is_ok(), "{format:?}");
        for key in
            ["stream", "max_tokens", "max_output_tokens", "messages", "input", "system", "instructions", "tools", "documents", "query", "store"]
        {
            let twice = format!(r#"{{"{key}":null,"model":"a","{key}":null}}"#);
            assert!(format.scan(twice.as_bytes()).is_err(), "{format:?} {key}");
        }
        assert_eq!(format.scan(br#"{"mod\u0065l":"a","max_tokens":1}"#), Err(ScanError::EscapedKey));
        assert_eq!(format.scan(with("} {").as_bytes()), Err(ScanError::Trailing));
        assert_eq!(format.scan(with(&format!(r#","x":{}{}"#, "[".repeat(64), "]".repeat(64))).as_bytes()), Err(ScanError::Depth));
    }
}

#[test]
fn each_form_has_its_own_bound() {
    let body = br#"{"model":"a","max_tokens":5,"max_completion_tokens":9,"max_output_tokens":7}"#;
    let bound = |format: RequestFormat| format.scan(body).unwrap().max_tokens;
    assert_eq!((bound(RequestFormat::Chat), bound(RequestFormat::Response), bound(RequestFormat::Message)), (Some(9), Some(7), Some(5)));
    let head = RequestFormat::Message.scan(body).unwrap();
    let (start, end) = head.max_tokens_at.unwrap();
    assert_eq!(&body[start..end], b"5");
    assert_eq!(RequestFormat::Message.scan(br#"{"model":"a","messages":[]}"#), Err(ScanError::Missing("max_tokens")));
    assert!(RequestFormat::CountTokens.scan(br#"{"model":"a","messages":[]}"#).is_ok());
    let many = br#"{"model":"a","n":3,"best_of":5,"prompt":["a","b"]}"#;
    assert_eq!(completions(RequestFormat::Completion, &RequestFormat::Completion.scan(many).unwrap(), many), 10);
    let tokens = br#"{"model":"a","prompt":[1,2,3]}"#;
    assert_eq!(completions(RequestFormat::Completion, &RequestFormat::Completion.scan(tokens).unwrap(), tokens), 1);
}

#[test]
fn what_lives_at_the_provider_is_refused() {
    let response = |extra: &str| {
        RequestFormat::Response
            .scan(format!(r#"{{"model":"a",{extra}}}"#).as_bytes())
            .map(|_| ())
            .map_err(|error| (error.code().text(), error.param()))
    };
    let state = |param| Err(("provider_state_not_served", Some(param)));
    assert_eq!(response(r#""previous_response_id":"r""#), state("previous_response_id"));
    assert_eq!(response(r#""conversation":{"id":"c"}"#), state("conversation"));
    assert_eq!(response(r#""background":true"#), state("background"));
    assert_eq!(response(r#""prompt":{"id":"p"}"#), state("prompt"));
    assert_eq!(response(r#""input":[{"role":"user","content":"x"},{"type":"item_reference","id":"i"}]"#), state("input[].type"));
    assert_eq!(response(r#""input":[{"type":"item\u005freference","id":"i"}]"#), state("input[].type"));
    assert_eq!(response(r#""input":[{"id":"i"}]"#), state("input[].id"));
    assert_eq!(response(r#""input":[{"id":"i","ty\u0070e":"message"}]"#), Err(("escaped_key", None)));
    assert_eq!(
        response(r#""tools":[{"type":"function"},{"type":"code_interpreter","container":"cntr"}]"#),
        Err(("hosted_tool_not_served", Some("tools[].type")))
    );
    for good in [
        r#""previous_response_id":null,"conversation":null,"background":false,"prompt":null,"store":true,"input":"hi""#,
        r#""input":[{"role":"user","content":"x"},{"type":"function_call_output","call_id":"c","output":"o"}],"tools":[{"type":"function","name":"f"},{"type":"custom"}]"#,
        r#""input":[],"tools":[]"#,
    ] {
        assert_eq!(response(good), Ok(()), "{good}");
    }
    let message = |extra: &str| {
        RequestFormat::Message.scan(format!(r#"{{"model":"a","max_tokens":1,{extra}}}"#).as_bytes()).map_err(|error| error.code().text()).map(|_| ())
    };
    assert_eq!(message(r#""container":"c""#), Err("provider_state_not_served"));
    assert_eq!(message(r#""mcp_servers":[{"url":"u"}]"#), Err("provider_state_not_served"));
    assert_eq!(message(r#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#), Err("hosted_tool_not_served"));
    assert_eq!(
        message(r#""mcp_servers":[],"tools":[{"name":"f","input_schema":{"type":"web_search"}},{"type":"bash_20250124"},{"type":"custom"}]"#),
        Ok(())
    );
    let chat = RequestFormat::Chat.scan(br#"{"model":"a","web_search_options":{}}"#).map_err(|error| error.code().text());
    assert_eq!(chat.map(|_| ()), Err("hosted_tool_not_served"));
}

#[test]
fn the_prompts_head_is_the_systems_then_the_conversations() {
    let body = br#"{"model":"a","max_tokens":1,"messages":[{"role":"user"}],"system":"be brief"}"#;
    let head = RequestFormat::Message.scan(body).unwrap();
    assert_eq!(head.prompt_head(body, 100), [&br#""be brief""#[..], br#"[{"role":"user"}]"#]);
    assert_eq!(head.prompt_head(body, 12), [&br#""be brief""#[..], b"[{"]);
    assert_eq!(head.prompt_head(body, 4), [&br#""be "#[..], b""]);
}

#[test]
fn only_text_that_stands_in_the_body_is_proven() {
    let media = |format: RequestFormat, body: serde_json::Value| {
        let text = body.to_string();
        format.scan(text.as_bytes()).unwrap().media(text.as_bytes())
    };
    let chat = |content: serde_json::Value| media(RequestFormat::Chat, json!({"model": "a", "messages": [{"role": "user", "content": content}]}));
    assert_eq!(chat(json!("hi \"image_url\"")), Media::None);
    assert_eq!(chat(json!([{"type": "text", "text": "hi"}])), Media::None);
    assert_eq!(chat(json!([{"type": "image_url", "image_url": {"url": "u"}}])), Media::Some);
    assert_eq!(chat(json!([{"image_url": {"url": "u"}}])), Media::Some);
    assert_eq!(chat(json!([{"type": "hologram", "text": "hi"}])), Media::Unknown);
    assert_eq!(chat(json!([{"type": "text", "holo": 1}])), Media::Unknown);
    let tool = json!([{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"image_url": {"x": 1}}}]}]);
    assert_eq!(media(RequestFormat::Message, json!({"model": "a", "max_tokens": 1, "messages": tool})), Media::None);
    assert_eq!(media(RequestFormat::Embedding, json!({"model": "a", "input": ["a", "b"]})), Media::None);
    assert_eq!(
        media(RequestFormat::Response, json!({"model": "a", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "u"}]}]})),
        Media::Some
    );
    assert_eq!(media(RequestFormat::Chat, json!({"model": "a"})), Media::Unknown);
    let escaped = br#"{"model":"a","messages":[{"role":"user","content":[{"\u0069mage_url":"u"}]}]}"#;
    assert_eq!(RequestFormat::Chat.scan(escaped).unwrap().media(escaped), Media::Unknown);
}

fn observed(format: RequestFormat, text: &str) -> StreamProgress {
    let mut observer = Observer::of(format, false);
    let mut passed = Vec::new();
    for piece in text.as_bytes().chunks(7) {
        observer.observe(Bytes::copy_from_slice(piece), |bytes| passed.extend_from_slice(&bytes));
    }
    observer.finish();
    assert_eq!(passed, text.as_bytes());
    *observer.progress()
}

#[test]
fn anthropics_numbers_are_cumulative_and_kept_apart() {
    let whole = include_str!("golden/stream_to_chunks.txt");
    let seen = observed(RequestFormat::Message, whole);
    assert_eq!(seen.measured(), (Usage { input: 17, output: 9, cached: 8, cache_write: 4, ..Usage::default() }, Source::Engine));
    assert!(seen.done && seen.is_whole());
    // Broken off: the input is known, the output counted.
    let cut = &whole[..whole.find("event: message_delta").unwrap()];
    let seen = observed(RequestFormat::Message, cut);
    let (usage, source) = seen.measured();
    assert_eq!((usage.input, usage.output, source, seen.is_whole()), (17, seen.output_frames.max(seen.output_bytes / 4), Source::Estimated, false));
    assert!(seen.output_frames == 6);
    // Without `event:` lines, and keys in another order.
    let odd = "data: {\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}},\"type\":\"message_start\"}\n\ndata: {\"delta\":{},\"type\":\"message_delta\",\"usage\":{\"output_tokens\":4}}\n\ndata: {\"type\":\"message_stop\"}\n\n";
    assert_eq!(observed(RequestFormat::Message, odd).measured(), (Usage { input: 3, output: 4, ..Usage::default() }, Source::Engine));
    assert!(observed(RequestFormat::Message, "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n").error);
}

#[test]
fn a_response_ends_with_its_event() {
    let frame = |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n");
    let begin = frame("response.created", r#""response":{"tools":[{"parameters":{"usage":{"input_tokens":9}}}]}"#)
        + &frame("response.output_text.delta", r#""delta":"12345678""#);
    let usage = r#""usage":{"input_tokens":7,"output_tokens":2,"input_tokens_details":{"cached_tokens":3}}"#;
    for kind in ["response.completed", "response.incomplete", "response.failed"] {
        let seen = observed(
            RequestFormat::Response,
            &format!("{begin}{}", frame(kind, &format!(r#""response":{{{usage},"metadata":{{"usage":{{"input_tokens":0}}}}}}"#))),
        );
        assert_eq!(seen.measured(), (Usage { input: 7, output: 2, cached: 3, ..Usage::default() }, Source::Engine));
        assert_eq!((seen.done, seen.error), (true, kind == "response.failed"));
    }
    let (usage, source) = observed(RequestFormat::Response, &begin).measured();
    assert_eq!((usage.output, source), (2, Source::Estimated));
    assert!(observed(RequestFormat::Response, "event: error\ndata: {\"type\":\"error\",\"message\":\"x\"}\n\n").error);
}

#[test]
fn running_numbers_bill_a_stream_that_broke_off() {
    let chunk = |n: u64| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"a\"}}}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":{n}}}}}\n\n")
    };
    let seen = observed(RequestFormat::Chat, &(chunk(1) + &chunk(2) + &chunk(5)));
    assert_eq!(seen.measured(), (Usage { input: 9, output: 5, ..Usage::default() }, Source::Continuous));
    let end = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":6}}\n\n";
    let seen = observed(RequestFormat::Chat, &(chunk(1) + end));
    assert_eq!(seen.measured(), (Usage { input: 9, output: 6, ..Usage::default() }, Source::Engine));
    assert!(seen.is_whole() && !seen.done, "engines that forget [DONE]");
    let plain = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n";
    assert!(!observed(RequestFormat::Chat, plain).is_whole(), "a finish_reason alone is no end");
    assert_eq!(observed(RequestFormat::Chat, &format!("{plain}data: [DONE]\n\n")).measured(), (Usage::default(), Source::None));
}
