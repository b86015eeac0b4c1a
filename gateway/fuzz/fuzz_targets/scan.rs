//! What the scan lets through is JSON for serde too, and says the same; a cap that is spliced in is read back. The first byte chooses the form.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tenon_dialects::{Changes, RequestFormat, UsageRequest, completions, splice};

const FORMATS: [RequestFormat; 7] = [
    RequestFormat::Chat,
    RequestFormat::Completion,
    RequestFormat::Embedding,
    RequestFormat::Response,
    RequestFormat::Message,
    RequestFormat::CountTokens,
    RequestFormat::Rerank,
];

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let format = FORMATS[usize::from(*first) % FORMATS.len()];
    let Ok(head) = format.scan(body) else { return };
    let raw: serde_json::Result<Box<serde_json::value::RawValue>> = serde_json::from_slice(body);
    assert!(raw.is_ok());
    let _ = (head.media(body), completions(format, &head, body), head.prompt_head(body, 100));
    let bound = format.bound(&head, body);
    assert!(bound.input_bytes >= body.len() as u64 && bound.completions >= 1);
    if format.cap_name().is_some() && head.max_tokens.is_none() {
        let (whole, cap) = (Bytes::copy_from_slice(body), format.cap(&head, 7));
        let capped: Vec<u8> = splice(&whole, &head, &Changes { model: None, usage: UsageRequest::None, cap: Some(&cap) }).flatten().collect();
        assert_eq!(format.scan(&capped).map(|head| head.max_tokens), Ok(Some(7)));
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) {
        assert_eq!(value["model"].as_str(), Some(&*head.model));
        assert_eq!(value["stream"].as_bool().unwrap_or(false), head.stream);
        if let Some((start, end)) = head.max_tokens_at {
            assert!(std::str::from_utf8(&body[start..end]).is_ok_and(|digits| digits.trim().parse::<u64>().is_ok()));
        }
    }
});
