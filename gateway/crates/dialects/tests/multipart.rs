//! Forms: what clients write is read, what two parsers could read differently is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use proptest::prelude::*;
use tenon_dialects::multipart::{FormError, scan_form, splice_form};

const TYPE: &[u8] = b"multipart/form-data; boundary=XbX";

fn part(head: &str, value: &str) -> String {
    format!("--XbX\r\n{head}\r\n\r\n{value}\r\n")
}

fn field(name: &str, value: &str) -> String {
    part(&format!("Content-Disposition: form-data; name=\"{name}\""), value)
}

fn file() -> String {
    part("Content-Disposition: form-data; name=\"file\"; filename=\"a b.wav\"\r\nContent-Type: audio/wav", "RIFF\r\n--Xb\0\r\n\r\nmore")
}

fn form(parts: &[String]) -> String {
    parts.concat() + "--XbX--\r\n"
}

fn error(body: &str) -> FormError {
    scan_form(TYPE, body.as_bytes()).expect_err(body)
}

#[test]
fn the_model_is_found_and_renamed_in_place() {
    let body = form(&[file(), field("model", "whisper-1"), field("stream", "true"), field("timestamp_granularities[]", "word")]);
    let head = scan_form(TYPE, body.as_bytes()).unwrap();
    assert_eq!((head.model, head.stream), ("whisper-1", true));
    let bytes = Bytes::from(body.clone());
    let renamed: Vec<u8> = splice_form(&bytes, head.model_at, Some("turbo")).flatten().collect();
    assert_eq!(String::from_utf8(renamed).unwrap(), body.replace("whisper-1", "turbo"));
    let same: Vec<u8> = splice_form(&bytes, head.model_at, None).flatten().collect();
    assert_eq!(same, body.as_bytes());
}

#[test]
fn what_clients_write_is_taken() {
    let body = form(&[field("model", "m")]);
    for content_type in ["multipart/form-data; boundary=\"XbX\"", "Multipart/Form-Data;charset=utf-8;boundary=XbX"] {
        assert_eq!(scan_form(content_type.as_bytes(), body.as_bytes()).unwrap().model, "m", "{content_type}");
    }
    let typed = part("content-disposition: form-data; name=model\r\ncontent-type: text/plain; charset=UTF-8\r\nContent-Length: 1", "m");
    assert_eq!(scan_form(TYPE, form(&[typed]).as_bytes()).unwrap().model, "m");
    let encoded = part("Content-Disposition: form-data; name=\"file\"; filename*=utf-8''%C3%A4.wav", "x");
    assert_eq!(scan_form(TYPE, form(&[encoded, field("model", "m")]).as_bytes()).unwrap().model, "m");
    assert_eq!(scan_form(TYPE, body.trim_end().as_bytes()).unwrap().model, "m", "no line after the end");
}

#[test]
fn two_of_one_name_are_refused() {
    assert_eq!(error(&form(&[field("model", "a"), field("model", "b")])), FormError::Duplicate("model"));
    assert_eq!(error(&form(&[field("model", "a"), field("stream", "true"), field("stream", "false")])), FormError::Duplicate("stream"));
    assert_eq!(error(&form(&[file()])), FormError::Missing("model"));
    let as_file = part("Content-Disposition: form-data; name=\"model\"; filename=\"m\"", "a");
    assert!(matches!(error(&form(&[as_file])), FormError::Value("model", _)));
    let other_charset = part("Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain; charset=utf-16", "a");
    assert!(matches!(error(&form(&[other_charset])), FormError::Value("model", _)));
    for name in ["", " m", "m\n", "a\0b", &"m".repeat(257)] {
        assert!(matches!(error(&form(&[field("model", name)])), FormError::Value("model", _)), "{name:?}");
    }
}

#[test]
fn heads_that_read_in_two_ways_are_refused() {
    let heads = [
        "Content-Disposition: form-data; name=\"mod\\el\"",
        "Content-Disposition: form-data; name=\"m\"; name=\"model\"",
        "Content-Disposition: form-data; name=\"m\"\r\nContent-Disposition: form-data; name=\"model\"",
        "Content-Disposition: form-data; name*=utf-8''model",
        "Content-Disposition: form-data; name=\"mod%65l\"",
        "Content-Disposition: form-data; name=\"=?utf-8?q?model?=\"",
        "Content-Disposition: form-data; name=\"_charset_\"",
        "Content-Disposition: form-data; name=\"\"",
        "Content-Disposition: form-data",
        "Content-Disposition: attachment; name=\"x\"",
        "Content-Disposition: form-data;\r\n name=\"model\"",
        "Content-Disposition : form-data; name=\"model\"",
        "Content-Disposition: form-data; name=\"a\"\nContent-Disposition: form-data; name=\"model\"",
        "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64",
        "Content-Type: text/plain",
        "Content-Disposition: form-data; name=\"unfinished",
        "Content-Disposition: form-data; name=\"a\" model",
    ];
    for head in heads {
        assert_eq!(error(&form(&[part(head, "x"), field("model", "m")])), FormError::PartHead, "{head}");
    }
}

#[test]
fn framing_that_reads_in_two_ways_is_refused() {
    let good = form(&[field("model", "m")]);
    let bodies = [
        format!("preamble\r\n{good}"),
        format!("{good}epilogue"),
        format!("{good}\r\n"),
        good.replace("--XbX--", "--XbX"),
        good.replacen("--XbX\r\n", "--XbX \r\n", 1),
        good.replacen("--XbX\r\n", "--XbX\n", 1),
        // A parser that takes bare line feeds finds a second model in the file's bytes, one that takes prefixes another.
        form(&[part("Content-Disposition: form-data; name=\"file\"; filename=\"f\"", "a\n--XbX\r\nmore"), field("model", "m")]),
        form(&[part("Content-Disposition: form-data; name=\"file\"; filename=\"f\"", "a\r\n--XbXtail\r\nmore"), field("model", "m")]),
        String::new(),
        "--XbX--\r\n".into(),
    ];
    for body in bodies {
        assert_eq!(error(&body), FormError::Framing, "{body:?}");
    }
    for content_type in
        ["multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=XbX", "multipart/form-data; boundary=XbX; boundary=Y"]
    {
        assert_eq!(scan_form(content_type.as_bytes(), good.as_bytes()), Err(FormError::ContentType), "{content_type}");
    }
    let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
    assert_eq!(scan_form(long.as_bytes(), good.as_bytes()), Err(FormError::ContentType));
    assert_eq!(error(&(field("a", "b").repeat(257) + "--XbX--")), FormError::TooManyParts);
    assert_eq!(error(&form(&[part(&format!("Content-Disposition: form-data; name=a\r\nX: {}", "x".repeat(9000)), "")])), FormError::PartHead);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_and_what_is_found_stands_there(body in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
        let _ = scan_form(TYPE, &body);
        let whole = form(&[file(), field("model", "whisper-1"), field("prompt", "x")]);
        let broken = &whole.as_bytes()[..cut.min(whole.len())];
        prop_assert!(scan_form(TYPE, broken).is_err());
    }
}
