//! What a body proves about its tokens, and the cap that is spliced in.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use tenon_dialects::{AskUsage, Form, splice_capped};

fn is_text(form: Form, body: &str) -> bool {
    form.bound(&form.scan(body.as_bytes()).unwrap(), body.as_bytes()).is_text
}

#[test]
fn only_what_is_surely_text_is_bounded_by_its_bytes() {
    for (form, body) in [
        (Form::Chat, r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#),
        (Form::Chat, r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"modalities":["text"],"audio":null}"#),
        (Form::Chat, r#"{"model":"m","tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"hi"}]}"#),
        (Form::Completion, r#"{"model":"m","prompt":["a","b"]}"#),
        (Form::Embedding, r#"{"model":"m","input":[1,2,3]}"#),
        (Form::Message, r#"{"model":"m","max_tokens":5,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[]}"#),
        (Form::Response, r#"{"model":"m","instructions":"be","input":"hi"}"#),
    ] {
        assert!(is_text(form, body), "{body}");
    }
    for (form, body) in [
        (Form::Chat, r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}"#),
        (Form::Chat, r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image\u005furl","image\u005furl":{"url":"x"}}]}]}"#),
        (Form::Chat, r#"{"model":"m","messages":[],"chat_template":"{% for i in range(1000000) %}x{% endfor %}"}"#),
        (Form::Chat, r#"{"model":"m","messages":[],"input":"x"}"#),
        (Form::Chat, r#"{"model":"m","messages":[],"modalities":["text","audio"]}"#),
        (Form::Message, r#"{"model":"m","max_tokens":5,"system":[{"type":"image","source":{}}],"messages":[]}"#),
        (Form::Chat, r#"{"model":"m"}"#),
    ] {
        let scanned = form.scan(body.as_bytes());
        assert!(scanned.is_err() || !is_text(form, body), "{body}");
    }
}

#[test]
fn several_prompts_tools_and_documents_count_as_often_as_an_engine_reads_them() {
    let bound = |form: Form, body: &str| form.bound(&form.scan(body.as_bytes()).unwrap(), body.as_bytes());
    assert_eq!(bound(Form::Completion, r#"{"model":"m","prompt":["a","b"],"n":3}"#).completions, 6);
    let tools = r#"{"model":"m","tools":[{"type":"function"}],"messages":[]}"#;
    assert_eq!(bound(Form::Chat, tools).input_bytes, tools.len() as u64 + 21);
    let rerank = r#"{"model":"m","query":"abcd","documents":["x","y","z"]}"#;
    assert_eq!(bound(Form::Rerank, rerank).input_bytes, rerank.len() as u64 + 3 * 6);
}

#[test]
fn a_cap_is_spliced_in_once_where_the_caller_has_none() {
    let capped = |form: Form, body: &str| {
        let (whole, head) = (Bytes::copy_from_slice(body.as_bytes()), form.scan(body.as_bytes()).unwrap());
        let cap = form.cap(&head, 77);
        let pieces: Vec<u8> = splice_capped(&whole, &head, Some("up"), AskUsage::Total, Some(&cap)).flatten().collect();
        let json: serde_json::Value = serde_json::from_slice(&pieces).unwrap();
        let again = form.scan(&pieces).unwrap();
        assert_eq!((again.max_tokens, json["model"].as_str()), (Some(77), Some("up")), "{json}");
        json
    };
    let json = capped(Form::Chat, r#"{"model":"m","stream":true,"messages":[]}"#);
    assert_eq!((json["max_tokens"].as_u64(), json["stream_options"]["include_usage"].as_bool()), (Some(77), Some(true)));
    assert_eq!(capped(Form::Chat, r#"{"model":"m","max_tokens":null,"messages":[]}"#)["max_tokens"], 77);
    assert_eq!(capped(Form::Chat, r#"{"max_completion_tokens": null ,"model":"m","messages":[]}"#)["max_completion_tokens"], 77);
    assert_eq!(capped(Form::Response, r#"{"model":"m","input":"x"}"#)["max_output_tokens"], 77);
    // A cap where the engine does not look for it would bound nothing.
    assert_eq!(capped(Form::Response, r#"{"model":"m","max_tokens":null,"input":"x"}"#)["max_output_tokens"], 77);
    assert_eq!(capped(Form::Completion, r#"{"model":"m","max_completion_tokens":3,"prompt":"x"}"#)["max_tokens"], 77);
    assert_eq!(capped(Form::Chat, r#"{"model":"m","max_output_tokens":null,"messages":[]}"#)["max_tokens"], 77);
}
