//! What the scan lets through, every parser reads alike.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tenon_dialects::{Changes, Head, IncludeUsage, RequestFormat, ScanError, UsageRequest, splice};

fn scan(body: &[u8]) -> Result<Head<'_>, ScanError> {
    RequestFormat::Chat.scan(body)
}

fn spliced(body: &str, model: Option<&str>, usage: bool) -> Value {
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let usage = if usage { UsageRequest::Total } else { UsageRequest::None };
    let pieces = splice(&bytes, &scan(&bytes).unwrap(), &Changes { model, usage, cap: None });
    let length = pieces.remaining();
    let whole = pieces.map(|p| p.to_vec()).collect::<Vec<_>>().concat();
    assert_eq!(whole.len(), length);
    assert!(scan(&whole).is_ok(), "{}", String::from_utf8_lossy(&whole));
    serde_json::from_slice(&whole).unwrap()
}

#[test]
fn the_head_is_read() {
    let body = br#" {"messages":[{"role":"user","content":"hi \"model\""}],"max_tokens":5,"model":"org\/m","stream":true,"stream_options":{"include_usage":true}} "#;
    let head = scan(body).unwrap();
    assert_eq!((&*head.model, head.stream, head.max_tokens, head.include_usage), ("org/m", true, Some(5), IncludeUsage::Requested));
}

#[test]
fn whatever_could_be_read_differently_is_refused() {
    let deep = |n: usize| format!(r#"{{"model":"a","x":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(scan(deep(63).as_bytes()).is_ok());
    let cases: Vec<(String, ScanError)> = vec![
        (r#"{"model":"a","model":"b"}"#.into(), ScanError::Duplicate("model")),
        (r#"{"model":"a","stream":true,"stream":false}"#.into(), ScanError::Duplicate("stream")),
        (
            r#"{"model":"a","stream_options":{"include_usage":true,"include_usage":false}}"#.into(),
            ScanError::Duplicate("stream_options.include_usage"),
        ),
        (r#"{"mod\u0065l":"a"}"#.into(), ScanError::EscapedKey),
        (r#"{"model":"a","stream_options":{"include\u005fusage":true}}"#.into(), ScanError::EscapedKey),
        (deep(64), ScanError::Depth),
        (deep(100_000), ScanError::Depth),
        (r#"{"model":"a"} {}"#.into(), ScanError::Trailing),
        (r#"{"model":1}"#.into(), ScanError::Type("model", "a string")),
        (r#"{"model":"a","stream":"yes"}"#.into(), ScanError::Type("stream", "true or false")),
        (r#"{"model":"a","stream_options":[]}"#.into(), ScanError::Type("stream_options", "an object")),
        (r#"{"model":"a","max_tokens":1e3}"#.into(), ScanError::Type("max_tokens", "a whole number")),
        (r#"{"model":"a","n":-1}"#.into(), ScanError::Type("n", "a whole number")),
        (r#"{"stream":true}"#.into(), ScanError::Missing("model")),
        ("[]".into(), ScanError::NotObject),
        ("".into(), ScanError::Syntax),
        (r#"{"model":"a""#.into(), ScanError::Syntax),
        (r#"{"model":"a",}"#.into(), ScanError::Syntax),
        (r#"{"model":"a","x":[1}}"#.into(), ScanError::Syntax),
        (r#"{"model":"a","x":01}"#.into(), ScanError::Syntax),
        ("{\"model\":\"a\",\"x\":\"\n\"}".into(), ScanError::Syntax),
    ];
    for (body, error) in cases {
        assert_eq!(scan(body.as_bytes()), Err(error), "{}", &body[..body.len().min(80)]);
    }
    assert_eq!(scan(b"{\"model\":\"\xff\"}"), Err(ScanError::Utf8));
}

#[test]
fn only_what_must_change_is_spliced() {
    let requested = json!({"include_usage": true});
    assert_eq!(spliced(r#"{"model":"a","stream":true}"#, None, true)["stream_options"], requested);
    assert_eq!(spliced(r#"{"stream_options":null,"model":"a"}"#, None, true)["stream_options"], requested);
    assert_eq!(spliced(r#"{"stream_options":{},"model":"a"}"#, None, true)["stream_options"], requested);
    assert_eq!(spliced(r#"{"stream_options":{ "include_usage" : false },"model":"a"}"#, None, true)["stream_options"], requested);
    assert_eq!(spliced(r#"{"stream_options":{"x":1},"model":"a"}"#, None, true)["stream_options"], json!({"x":1,"include_usage":true}));
    assert_eq!(
        spliced(r#"{"stream_options":{"include_usage":true},"model":"a"}"#, Some("b\"c"), true),
        json!({"stream_options":requested,"model":"b\"c"})
    );
    assert_eq!(spliced(r#"{"model":"a","stream_options":{}}"#, Some("b"), true), json!({"model":"b","stream_options":requested}));
    assert_eq!(spliced(r#"{"model":"a"}"#, None, false), json!({"model":"a"}));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-z\"\\\\é]{0,6}", inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Value> {
    let options = prop_oneof![Just(json!(null)), Just(json!({})), any::<bool>().prop_map(|b| json!({"include_usage": b, "x": 1}))];
    (
        ".{1,10}",
        any::<bool>(),
        prop::option::of(any::<u32>()),
        prop::option::of(options),
        prop::collection::btree_map("x[a-z]{0,4}", any_json(), 0..6),
    )
        .prop_map(|(model, stream, max, options, rest)| {
            let mut map: Map<String, Value> = rest.into_iter().collect();
            map.insert("model".into(), model.into());
            map.insert("stream".into(), stream.into());
            max.map(|max| map.insert("max_tokens".into(), max.into()));
            options.map(|options| map.insert("stream_options".into(), options));
            Value::Object(map)
        })
}

proptest! {
    #[test]
    fn a_good_request_is_read_as_serde_reads_it(request in any_request(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&request) } else { serde_json::to_string(&request) }.unwrap();
        let head = scan(text.as_bytes()).unwrap();
        prop_assert_eq!(Some(&*head.model), request["model"].as_str());
        prop_assert_eq!(Some(head.stream), request["stream"].as_bool());
        prop_assert_eq!(head.max_tokens, request["max_tokens"].as_u64());
        prop_assert_eq!(head.include_usage == IncludeUsage::Requested, request["stream_options"]["include_usage"] == json!(true));
        let mut expected = request.clone();
        expected["model"] = json!("other");
        if !expected["stream_options"].is_object() { expected["stream_options"] = json!({}); }
        expected["stream_options"]["include_usage"] = json!(true);
        prop_assert_eq!(spliced(&text, Some("other"), true), expected);
    }

    /// Damage a good request anywhere: what is still accepted is JSON for serde too, and says the same.
    #[test]
    fn nothing_is_accepted_that_serde_refuses(request in any_request(), at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..3), cut in 0_usize..3) {
        let mut text = serde_json::to_vec(&request).unwrap();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, with);
        if let Ok(head) = scan(&text) {
            let value: serde_json::Result<Box<serde_json::value::RawValue>> = serde_json::from_slice(&text);
            prop_assert!(value.is_ok(), "{}", String::from_utf8_lossy(&text));
            if let Ok(value) = serde_json::from_slice::<Value>(&text) {
                prop_assert_eq!(Some(&*head.model), value["model"].as_str());
                prop_assert_eq!(head.stream, value["stream"].as_bool().unwrap_or(false));
            }
        }
    }

    #[test]
    fn a_repeated_key_is_never_accepted(request in any_request(), key in prop::sample::select(vec!["model", "stream", "max_tokens", "stream_options"]), value in any_json(), first in any::<bool>()) {
        prop_assume!(request.get(key).is_some());
        let text = serde_json::to_string(&request).unwrap();
        let again = format!("\"{key}\":{value}");
        let body = if first { format!("{{{again},{}", &text[1..]) } else { format!("{},{again}}}", &text[..text.len() - 1]) };
        prop_assert!(scan(body.as_bytes()).is_err());
    }
}

#[test]
fn continuous_usage_is_requested_once() {
    for (body, expected) in [
        (r#"{"model":"a","stream":true}"#, json!({"include_usage": true, "continuous_usage_stats": true})),
        (r#"{"stream_options":null,"model":"a"}"#, json!({"include_usage": true, "continuous_usage_stats": true})),
        (r#"{"stream_options":{},"model":"a"}"#, json!({"include_usage": true, "continuous_usage_stats": true})),
        (r#"{"stream_options":{"x":1},"model":"a"}"#, json!({"x": 1, "include_usage": true, "continuous_usage_stats": true})),
        (r#"{"stream_options":{"include_usage":true},"model":"a"}"#, json!({"include_usage": true, "continuous_usage_stats": true})),
        (r#"{"stream_options":{"include_usage":false,"x":1},"model":"a"}"#, json!({"x": 1, "include_usage": true, "continuous_usage_stats": true})),
        (r#"{"stream_options":{"continuous_usage_stats":false},"model":"a"}"#, json!({"include_usage": true, "continuous_usage_stats": false})),
    ] {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let changes = Changes { model: None, usage: UsageRequest::Continuous, cap: None };
        let whole = splice(&bytes, &scan(&bytes).unwrap(), &changes).map(|p| p.to_vec()).collect::<Vec<_>>().concat();
        let value: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(value["stream_options"], expected, "{body}");
        assert_eq!(String::from_utf8(whole).unwrap().matches("continuous_usage_stats").count(), 1);
    }
}
