//! What scans, observers and translations cost: `cargo run --release -p tenon-dialects --example cost`. Best of ten rounds, one thread.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

use bytes::Bytes;
use std::hint::black_box;
use std::time::Instant;
use tenon_dialects::translate::{Direction, EndpointOptions, Translator};
use tenon_dialects::{Observer, RequestFormat};

const OPTIONS: EndpointOptions<'static> =
    EndpointOptions { model: Some("m"), output_tokens_max: 7, max_completion_tokens: false, continuous_usage: false };
const EVENTS: &str = include_str!("../tests/golden/stream_to_chunks.txt");
const CHUNKS: &str = include_str!("../tests/golden/stream_to_events.txt");

fn measure(name: &str, each: usize, mut work: impl FnMut()) {
    let best = (0..10)
        .map(|_| {
            let begun = Instant::now();
            (0..each).for_each(|_| work());
            begun.elapsed()
        })
        .min();
    println!("{name:45} {:8.2} µs", best.unwrap_or_default().as_secs_f64() * 1e6 / each as f64);
}

fn main() {
    let text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do.\\n".repeat(12);
    let chat = format!(
        r#"{{"model":"a","temperature":0.5,"max_tokens":64,"messages":[{{"role":"system","content":"be brief"}},{{"role":"user","content":"{text}"}}]}}"#
    );
    let message = format!(r#"{{"model":"a","max_tokens":64,"system":"be brief","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let chat_answer = format!(
        r#"{{"id":"c","object":"chat.completion","model":"x","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}}}"#
    );
    let message_answer = format!(
        r#"{{"id":"m","type":"message","role":"assistant","model":"x","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","usage":{{"input_tokens":9,"output_tokens":4}}}}"#
    );
    println!("bodies of {} and {} bytes", chat.len(), message.len());
    measure("scan chat", 20_000, || drop(black_box(RequestFormat::Chat.scan(chat.as_bytes()))));
    measure("scan message", 20_000, || drop(black_box(RequestFormat::Message.scan(message.as_bytes()))));
    measure("request, chat to messages", 20_000, || drop(black_box(Direction::ChatToMessages.request(chat.as_bytes(), &OPTIONS))));
    measure("request, messages to chat", 20_000, || drop(black_box(Direction::MessagesToChat.request(message.as_bytes(), &OPTIONS))));
    measure("answer, chat to message", 20_000, || drop(black_box(Direction::MessagesToChat.answer(chat_answer.as_bytes(), 7))));
    measure("answer, message to chat", 20_000, || drop(black_box(Direction::ChatToMessages.answer(message_answer.as_bytes(), 7))));
    for (name, direction, format, stream) in
        [("events", Direction::ChatToMessages, RequestFormat::Message, EVENTS), ("chunks", Direction::MessagesToChat, RequestFormat::Chat, CHUNKS)]
    {
        let frames: Vec<Bytes> = stream.split_inclusive("\n\n").map(|frame| Bytes::copy_from_slice(frame.as_bytes())).collect();
        println!("a stream of {} frames:", frames.len());
        measure(&format!("{name} observed"), 5_000, || {
            let mut observer = Observer::of(format, false);
            frames.iter().for_each(|frame| observer.observe(frame.clone(), |bytes| drop(black_box(bytes))));
        });
        measure(&format!("{name} translated"), 5_000, || {
            let mut translator = Translator::new(direction, true, 7);
            frames.iter().for_each(|frame| drop(black_box(translator.translate(frame))));
        });
    }
}
