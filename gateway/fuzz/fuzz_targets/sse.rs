//! Observers pass every byte, see the same however the reads are cut, and never panic. The first byte chooses the form, the second the cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tenon_dialects::{Form, Observer, Seen, usage_of_answer};

const FORMS: [Form; 4] = [Form::Chat, Form::Completion, Form::Response, Form::Message];

fn run(form: Form, stream: &[u8], size: usize, take_out: bool) -> (Vec<u8>, Seen) {
    let mut observer = Observer::of(form, take_out);
    let mut passed = Vec::new();
    for piece in stream.chunks(size) {
        observer.observe(Bytes::copy_from_slice(piece), |bytes| passed.extend_from_slice(&bytes));
    }
    passed.extend(observer.finish().into_iter().flatten());
    (passed, *observer.seen())
}

fuzz_target!(|data: &[u8]| {
    let [first, second, stream @ ..] = data else { return };
    let form = FORMS[usize::from(*first) % FORMS.len()];
    let (passed, whole) = run(form, stream, stream.len().max(1), false);
    assert_eq!(passed, stream);
    let (passed, cut) = run(form, stream, usize::from(*second) + 1, false);
    assert_eq!((passed.as_slice(), cut), (stream, whole));
    let (_, taken) = run(form, stream, usize::from(*second) + 1, true);
    assert_eq!(taken, whole);
    let _ = (whole.measured(), whole.is_whole(), usage_of_answer(form, stream));
});
