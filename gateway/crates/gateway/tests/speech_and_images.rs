//! Speech and images: passed on unchanged, metered by the usage that the endpoint reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{Stack, endpoint, model, table};
use tenon_contract::{Operation, Outcome, UsageSource};
use tenon_testkit::{Answer, Client, Step, json_answer, sse_head};

fn form(models: &[&str]) -> String {
    let model = |name: &&str| format!("--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{name}\r\n");
    let file = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n--C\r\n\r\n";
    models.iter().map(model).collect::<String>() + file + "--B--\r\n"
}

fn post_form(stack: &Stack, path: &str, body: &str) -> Answer {
    let head = format!("POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {}\r\n", stack.key.text);
    let head = head + &format!("content-type: multipart/form-data; boundary=B\r\ncontent-length: {}\r\n\r\n", body.len());
    Client::send(stack.gateway.address, (head + body).as_bytes()).finish()
}

#[test]
fn a_form_goes_up_as_it_came_but_for_a_renamed_model() {
    let stack = Stack::new();
    let reported = r#"{"text":"hi","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":14},"output_tokens":45}}"#;
    stack.upstream.respond(move |_| vec![Step::Send(json_answer(200, reported))]);
    let answer = post_form(&stack, "/v1/audio/transcriptions", &form(&["m"]));
    assert_eq!((answer.status, answer.text()), (200, reported.into()));
    assert_eq!(stack.upstream.last().body, form(&["m"]).as_bytes());
    assert_eq!(stack.upstream.last().header("content-type"), Some("multipart/form-data; boundary=B"));
    let record = stack.usage(&answer);
    assert_eq!((record.operation(), record.input_tokens, record.output_tokens, record.audio_tokens), (Operation::Transcription, 14, 45, 14));
    let mut renamed = model("m", "e1");
    renamed.routes[0].upstream_model = "whisper-large".into();
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![endpoint("e1", &stack.upstream.url())], vec![renamed])));
    post_form(&stack, "/v1/audio/translations", &form(&["m"]));
    assert_eq!(stack.upstream.last().body, form(&["whisper-large"]).as_bytes());
    let before = stack.upstream.count();
    let twice = post_form(&stack, "/v1/audio/transcriptions", &form(&["m", "other"]));
    assert_eq!((twice.status, twice.code(), stack.upstream.count()), (400, "duplicate_key".into(), before));
    assert_eq!(stack.upstream.count(), before);
}

#[test]
fn sound_passes_as_bytes_and_counts_as_a_call() {
    let stack = Stack::new();
    let sound: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let whole = [format!("HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: {}\r\n\r\n", sound.len()).as_bytes(), &sound].concat();
    stack.upstream.respond(move |_| vec![Step::Send(whole.clone())]);
    let answer = tenon_testkit::post(stack.gateway.address, "/v1/audio/speech", &stack.key.text, r#"{"model":"m","input":"hi","voice":"x"}"#);
    assert_eq!((answer.header("content-type"), answer.body == sound, answer.complete), (Some("audio/mpeg"), true, true));
    let record = stack.usage(&answer);
    assert_eq!((record.operation(), record.usage_source(), record.outcome()), (Operation::Speech, UsageSource::None, Outcome::Completed));
}

#[test]
fn images_are_counted_and_their_streams_must_be_complete() {
    let stack = Stack::new();
    let image = format!(r#"{{"b64_json":"{}"}}"#, "A".repeat(30_000));
    let reported = format!(r#"{{"created":1,"data":[{image},{image}],"usage":{{"input_tokens":5,"output_tokens":7}}}}"#);
    stack.upstream.respond(move |_| vec![Step::Send(json_answer(200, &reported))]);
    let generate = |body: &str| tenon_testkit::post(stack.gateway.address, "/v1/images/generations", &stack.key.text, body);
    let record = stack.usage(&generate(r#"{"model":"m","prompt":"x","n":2}"#));
    assert_eq!((record.images, record.input_tokens, record.output_tokens), (2, 5, 7));
    let done = "data: {\"type\":\"image_generation.completed\",\"b64_json\":\"AA\",\"usage\":{\"input_tokens\":5,\"output_tokens\":7}}\n\n";
    stack.upstream.respond(move |_| vec![Step::Send(sse_head()), Step::Send(done.into()), Step::Close]);
    let answer = generate(r#"{"model":"m","prompt":"x","stream":true}"#);
    assert_eq!(answer.text(), done);
    let record = stack.usage(&answer);
    assert_eq!((record.images, record.output_tokens, record.outcome(), record.streamed), (1, 7, Outcome::Completed, true));
    let part = "data: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"AA\"}\n\n";
    stack.upstream.respond(move |_| vec![Step::Send(sse_head()), Step::Send(part.into()), Step::Close]);
    let answer = generate(r#"{"model":"m","prompt":"x","stream":true}"#);
    assert!(answer.text().contains("upstream_cut"));
    assert_eq!(stack.usage(&answer).outcome(), Outcome::Cut);
}
