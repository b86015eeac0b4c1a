//! What a body proves about its tokens, and the cap that is spliced in.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tenon_dialects::{Changes, RequestFormat, UsageRequest, splice};

fn is_text(format: RequestFormat, body: &str) -> bool {
    format.bound(&format.scan(body.as_bytes()).unwrap(), body.as_bytes()).is_text
}

#[test]
fn only_what_is_surely_text_is_bounded_by_its_bytes() {
    for (format, body) in [
        (RequestFormat::Chat, r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#),
        (
            RequestFormat::Chat,
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"modalities":["text"],"audio":null}"#,
        ),
        (RequestFormat::Chat, r#"{"model":"m","tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"hi"}]}"#),
        (RequestFormat::Completion, r#"{"model":"m","prompt":["a","b"]}"#),
        (RequestFormat::Embedding, r#"{"model":"m","input":[1,2,3]}"#),
        (
            RequestFormat::Message,
            r#"{"model":"m","max_tokens":5,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[]}"#,
        ),
        (RequestFormat::Response, r#"{"model":"m","instructions":"be","input":"hi"}"#),
    ] {
        assert!(is_text(format, body), "{body}");
    }
    for (format, body) in [
        (RequestFormat::Chat, r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#),
        (RequestFormat::Chat, r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image\u005furl","image\u005furl":{"url":"x"}}]}]}"#),
        (RequestFormat::Chat, r#"{"model":"m","messages":[],"chat_template":"{% for i in range(1000000) %}x{% endfor %}"}"#),
        (RequestFormat::Chat, r#"{"model":"m","messages":[],"input":"x"}"#),
        (RequestFormat::Chat, r#"{"model":"m","messages":[],"modalities":["text","audio"]}"#),
        (RequestFormat::Message, r#"{"model":"m","max_tokens":5,"system":[{"type":"image","source":{}}],"messages":[]}"#),
        (RequestFormat::Chat, r#"{"model":"m"}"#),
    ] {
        let scanned = format.scan(body.as_bytes());
        assert!(scanned.is_err() || !is_text(format, body), "{body}");
    }
}

#[test]
fn several_prompts_tools_and_documents_count_as_often_as_an_engine_reads_them() {
    let bound = |format: RequestFormat, body: &str| format.bound(&format.scan(body.as_bytes()).unwrap(), body.as_bytes());
    assert_eq!(bound(RequestFormat::Completion, r#"{"model":"m","prompt":["a","b"],"n":3}"#).completions, 6);
    let tools = r#"{"model":"m","tools":[{"type":"function"}],"messages":[]}"#;
    assert_eq!(bound(RequestFormat::Chat, tools).input_bytes, tools.len() as u64 + 21);
    let rerank = r#"{"model":"m","query":"abcd","documents":["x","y","z"]}"#;
    assert_eq!(bound(RequestFormat::Rerank, rerank).input_bytes, rerank.len() as u64 + 3 * 6);
}

#[test]
fn a_cap_is_spliced_in_once_where_the_caller_has_none() {
    let capped = |format: RequestFormat, body: &str| {
        let (whole, head) = (Bytes::copy_from_slice(body.as_bytes()), format.scan(body.as_bytes()).unwrap());
        let cap = format.cap(&head, 77);
        let changes = Changes { model: Some("up"), usage: UsageRequest::Total, cap: Some(&cap) };
        let pieces: Vec<u8> = splice(&whole, &head, &changes).flatten().collect();
        let json: serde_json::Value = serde_json::from_slice(&pieces).unwrap();
        let again = format.scan(&pieces).unwrap();
        assert_eq!((again.max_tokens, json["model"].as_str()), (Some(77), Some("up")), "{json}");
        json
    };
    let json = capped(RequestFormat::Chat, r#"{"model":"m","stream":true,"messages":[]}"#);
    assert_eq!((json["max_tokens"].as_u64(), json["stream_options"]["include_usage"].as_bool()), (Some(77), Some(true)));
    assert_eq!(capped(RequestFormat::Chat, r#"{"model":"m","max_tokens":null,"messages":[]}"#)["max_tokens"], 77);
    assert_eq!(capped(RequestFormat::Chat, r#"{"max_completion_tokens": null ,"model":"m","messages":[]}"#)["max_completion_tokens"], 77);
    assert_eq!(capped(RequestFormat::Response, r#"{"model":"m","input":"x"}"#)["max_output_tokens"], 77);
    // A cap where the engine does not look for it would bound nothing.
    assert_eq!(capped(RequestFormat::Response, r#"{"model":"m","max_tokens":null,"input":"x"}"#)["max_output_tokens"], 77);
    assert_eq!(capped(RequestFormat::Completion, r#"{"model":"m","max_completion_tokens":3,"prompt":"x"}"#)["max_tokens"], 77);
    assert_eq!(capped(RequestFormat::Chat, r#"{"model":"m","max_output_tokens":null,"messages":[]}"#)["max_tokens"], 77);
}
