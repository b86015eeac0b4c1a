//! What the scan lets through is JSON for serde too, and says the same; a cap that is spliced in is read back. The first byte chooses the form.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tenon_dialects::{AskUsage, Form, completions, splice_capped};

const FORMS: [Form; 7] = [Form::Chat, Form::Completion, Form::Embedding, Form::Response, Form::Message, Form::CountTokens, Form::Rerank];

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let form = FORMS[usize::from(*first) % FORMS.len()];
    let Ok(head) = form.scan(body) else { return };
    let raw: serde_json::Result<Box<serde_json::value::RawValue>> = serde_json::from_slice(body);
    assert!(raw.is_ok());
    let _ = (head.media(body), completions(form, &head, body), head.prompt_head(body, 100));
    let bound = form.bound(&head, body);
    assert!(bound.input_bytes >= body.len() as u64 && bound.completions >= 1);
    if form.cap_name().is_some() && head.max_tokens.is_none() {
        let (whole, cap) = (Bytes::copy_from_slice(body), form.cap(&head, 7));
        let capped: Vec<u8> = splice_capped(&whole, &head, None, AskUsage::No, Some(&cap)).flatten().collect();
        assert_eq!(form.scan(&capped).map(|head| head.max_tokens), Ok(Some(7)));
    }
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) {
        assert_eq!(value["model"].as_str(), Some(&*head.model));
        assert_eq!(value["stream"].as_bool().unwrap_or(false), head.stream);
        if let Some((start, end)) = head.max_tokens_at {
            assert!(std::str::from_utf8(&body[start..end]).is_ok_and(|digits| digits.trim().parse::<u64>().is_ok()));
        }
    }
});
