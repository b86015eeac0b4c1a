//! The observer sees the same whatever the reads look like, and passes the same bytes.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use tenon_dialects::{Observer, StreamProgress};

fn run(chunks: &[&[u8]], take_out: bool) -> (Vec<u8>, StreamProgress) {
    let mut observer = Observer::new(take_out);
    let mut passed = Vec::new();
    for chunk in chunks {
        observer.observe(Bytes::copy_from_slice(chunk), |bytes| passed.extend_from_slice(&bytes));
    }
    if let Some(rest) = observer.finish() {
        passed.extend_from_slice(&rest);
    }
    (passed, *observer.progress())
}

const USAGE: &str = r#"data: {"choices": [ ],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#;

fn stream(end: &str) -> (String, String) {
    let frame = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}],\"usage\":null}}{end}{end}");
    let before = format!("{}: comment{end}{end}event: x{end}{}", frame("a"), frame(r#"\"choices\":[] \"usage\":{}"#));
    let done = format!("data: [DONE]{end}{end}");
    (format!("{before}{USAGE}{end}{end}{done}"), format!("{before}{done}"))
}

fn split<'a>(text: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_split_gives_the_same(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12), end in prop::sample::select(vec!["\n", "\r\n", "\r"])) {
        let (whole, without_usage) = stream(end);
        let chunks = split(whole.as_bytes(), &cuts);
        let (passed, seen) = run(&chunks, false);
        prop_assert_eq!(String::from_utf8(passed).unwrap(), whole.clone());
        let usage = seen.usage.unwrap();
        prop_assert_eq!((usage.input, usage.output, seen.output_frames, seen.done, seen.error), (9, 4, 2, true, false));
        let (passed, seen_too) = run(&chunks, true);
        prop_assert_eq!(seen, seen_too);
        // A CRLF cut in two may lose its LF or leave it behind, as an empty line, which means nothing between frames.
        let plain = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n").replace("\n\n\n", "\n\n");
        prop_assert_eq!(plain(&String::from_utf8(passed).unwrap()), plain(&without_usage));
    }

    #[test]
    fn bytes_of_any_kind_pass_unchanged(text in prop::collection::vec(prop::sample::select(b"\n\r d:at{}\"x".to_vec()), 0..200), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let chunks = split(&text, &cuts);
        prop_assert_eq!(&run(&chunks, false).0, &text);
        prop_assert_eq!(&run(&chunks, true).0, &text);
    }
}

#[test]
fn every_byte_alone_gives_the_same() {
    let (whole, without_usage) = stream("\n");
    let chunks: Vec<&[u8]> = whole.as_bytes().chunks(1).collect();
    assert_eq!(String::from_utf8(run(&chunks, true).0).unwrap(), without_usage);
}

#[test]
fn usage_that_comes_with_output_is_noted_and_stays() {
    let frame = "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
    let (passed, seen) = run(&[frame.as_bytes()], true);
    assert_eq!((passed.as_slice(), seen.usage.is_some()), (frame.as_bytes(), true));
}

#[test]
fn a_frame_without_end_does_not_fill_memory() {
    let big = format!("data: {}", "x".repeat(3 << 20));
    let chunks: Vec<&[u8]> = big.as_bytes().chunks(1 << 16).chain([&b"\n\ndata: [DONE]\n\n"[..]]).collect();
    let (passed, seen) = run(&chunks, true);
    assert!(passed.len() == big.len() + 16 && seen.done);
}

#[test]
fn an_error_frame_is_seen() {
    assert!(run(&[b"data: {\"error\":{}}\n\n"], false).1.error);
}
