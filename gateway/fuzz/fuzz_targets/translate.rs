//! Whatever comes in, what comes out is JSON, in one piece or cut; or it is refused. The first byte chooses the way, the second the cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use tenon_dialects::RequestFormat;
use tenon_dialects::translate::{Direction, EndpointOptions, Translator};

const OPTIONS: EndpointOptions<'static> =
    EndpointOptions { model: None, output_tokens_max: 7, max_completion_tokens: false, continuous_usage: false };

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<Box<RawValue>>(text).is_ok()
}

fn stream(direction: Direction, data: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut translator = Translator::new(direction, true, 7);
    let mut out = Vec::new();
    for piece in data.chunks(size) {
        out.extend_from_slice(&translator.translate(&Bytes::copy_from_slice(piece)).ok()?);
    }
    out.extend_from_slice(&translator.finish().ok()?);
    Some(out)
}

fuzz_target!(|data: &[u8]| {
    let [first, second, data @ ..] = data else { return };
    let (direction, format) =
        if first & 1 == 0 { (Direction::ChatToMessages, RequestFormat::Chat) } else { (Direction::MessagesToChat, RequestFormat::Message) };
    match first >> 1 & 3 {
        0 if format.scan(data).is_ok() => {
            if let Ok(out) = direction.request(data, &OPTIONS) {
                assert!(is_json(&out), "{}", String::from_utf8_lossy(&out));
            }
        }
        1 => {
            if let Ok(out) = direction.answer(data, 7) {
                assert!(is_json(&out), "{}", String::from_utf8_lossy(&out));
            }
        }
        2 => assert!(is_json(&direction.error(400, data, "id"))),
        3 => {
            let whole = stream(direction, data, data.len().max(1));
            assert_eq!(stream(direction, data, usize::from(*second) + 1), whole);
            let frames = whole.unwrap_or_default();
            for line in frames.split(|byte| *byte == b'\n') {
                if let Some(json) = line.strip_prefix(b"data: ").filter(|data| *data != b"[DONE]") {
                    assert!(is_json(json), "{}", String::from_utf8_lossy(json));
                }
            }
        }
        _ => {}
    }
});
