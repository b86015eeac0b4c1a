//! Observers pass every byte, see the same however the reads are cut, and never panic. The first byte chooses the form, the second the cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tenon_dialects::{Observer, RequestFormat, StreamProgress, usage_of_answer};

const FORMATS: [RequestFormat; 4] = [RequestFormat::Chat, RequestFormat::Completion, RequestFormat::Response, RequestFormat::Message];

fn run(format: RequestFormat, stream: &[u8], size: usize, take_out: bool) -> (Vec<u8>, StreamProgress) {
    let mut observer = Observer::of(format, take_out);
    let mut passed = Vec::new();
    for piece in stream.chunks(size) {
        observer.observe(Bytes::copy_from_slice(piece), |bytes| passed.extend_from_slice(&bytes));
    }
    passed.extend(observer.finish().into_iter().flatten());
    (passed, *observer.progress())
}

fuzz_target!(|data: &[u8]| {
    let [first, second, stream @ ..] = data else { return };
    let format = FORMATS[usize::from(*first) % FORMATS.len()];
    let (passed, whole) = run(format, stream, stream.len().max(1), false);
    assert_eq!(passed, stream);
    let (passed, cut) = run(format, stream, usize::from(*second) + 1, false);
    assert_eq!((passed.as_slice(), cut), (stream, whole));
    let (_, taken) = run(format, stream, usize::from(*second) + 1, true);
    assert_eq!(taken, whole);
    let _ = (whole.measured(), whole.is_whole(), usage_of_answer(format, stream));
});
