//! The faults between a gateway and an endpoint.

use crate::support::{DONE, USAGE_FRAME, frame};
use std::time::Duration;
use tenon_testkit::{Fault, Step, json_answer};

/// A fault at a position in the answer.
type FaultAt = fn(usize) -> Fault;

/// The connection to the endpoint.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    Refused,
    /// Its queue of connections is full: nothing answers a SYN.
    Unaccepting,
    AcceptsLate,
    /// Through the fault proxy.
    Through(Fault),
    /// As [`Self::Through`], at a position in the answer.
    At(FaultAt, Position),
}

/// A position in an answer of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Start,
    StatusLine,
    Headers,
    AfterHead,
    Body,
    /// Before the last byte of the JSON, or of the chunk that ends a stream.
    Last,
}

impl Position {
    pub fn of(self, answer: &[u8]) -> usize {
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        match self {
            Self::Start => 0,
            Self::StatusLine => 7,
            Self::Headers => 30,
            Self::AfterHead => head,
            Self::Body => head + (answer.len() - head) / 3,
            Self::Last => answer.len() - 1,
        }
    }
}

pub struct Case {
    pub name: String,
    pub link: Link,
    pub answer: fn(streamed: bool) -> Vec<u8>,
    pub large_request: bool,
}

pub const ANSWER: &str = r#"{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"yo"},"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":7}}"#;

pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const END: &[u8] = b"0\r\n\r\n";

fn stream_of(frames: &[&[u8]]) -> Vec<u8> {
    let chunks: Vec<Vec<u8>> = frames.iter().map(|frame| chunk(frame)).collect();
    [STREAM_HEAD, &chunks.concat(), END].concat()
}

pub fn good(streamed: bool) -> Vec<u8> {
    if streamed { stream_of(&[&frame("a"), &frame("b"), USAGE_FRAME, DONE]) } else { json_answer(200, ANSWER) }
}

/// The good answer with another head.
fn headed(head: &str, streamed: bool) -> Vec<u8> {
    let good = good(streamed);
    let body = Position::AfterHead.of(&good);
    [head.as_bytes(), &good[body..]].concat()
}

/// A good answer with more header lines.
fn with_lines(streamed: bool, lines: &str) -> Vec<u8> {
    let good = good(streamed);
    let at = Position::AfterHead.of(&good) - 2;
    [&good[..at], lines.as_bytes(), &good[at..]].concat()
}

impl Case {
    /// Whether the outcome depends on a race that no peer can decide: the connection ends while the request is being written.
    pub fn races(&self) -> bool {
        matches!(self.link, Link::Through(Fault::CloseAtOnce | Fault::ResetAtOnce))
    }
}

fn case(name: &str, link: Link) -> Case {
    Case { name: name.into(), link, answer: good, large_request: false }
}

fn wrong(name: &str, answer: fn(bool) -> Vec<u8>) -> Case {
    Case { name: name.into(), link: Link::Through(Fault::None), answer, large_request: false }
}

pub fn all() -> Vec<Case> {
    let mut cases = network();
    let faults: [(&str, FaultAt); 4] =
        [("reset", Fault::ResetAt), ("closed", Fault::CloseAt), ("half closed", Fault::HalfCloseAt), ("silent", Fault::SilentAt)];
    let positions = [
        (Position::Start, "before the answer"),
        (Position::StatusLine, "in the status line"),
        (Position::Headers, "in the headers"),
        (Position::AfterHead, "after the head"),
        (Position::Body, "in the body"),
        (Position::Last, "before the last byte"),
    ];
    for (name, fault) in faults {
        cases.extend(positions.map(|(position, text)| case(&format!("{name} {text}"), Link::At(fault, position))));
    }
    cases.extend(malformed_heads());
    cases.extend(malformed_bodies());
    cases.extend(malformed_streams());
    cases
}

fn network() -> Vec<Case> {
    let ms = Duration::from_millis;
    vec![
        case("no fault", Link::Through(Fault::None)),
        case("40 ms of latency each way", Link::Through(Fault::Latency(ms(40)))),
        case("accepts late", Link::AcceptsLate),
        case("refuses connections", Link::Refused),
        case("never accepts", Link::Unaccepting),
        case("closes at once", Link::Through(Fault::CloseAtOnce)),
        case("resets at once", Link::Through(Fault::ResetAtOnce)),
        case("swallows everything", Link::Through(Fault::Blackhole)),
        Case { large_request: true, ..case("never reads a large request", Link::Through(Fault::Deaf)) },
        case("drips its body, fast enough", Link::At(|at| Fault::Drip(at, Duration::from_millis(1)), Position::AfterHead)),
        case("drips its head too slowly", Link::Through(Fault::Drip(0, ms(60)))),
        case("drips its body too slowly", Link::At(|at| Fault::Drip(at, Duration::from_millis(250)), Position::AfterHead)),
    ]
}

fn malformed_heads() -> Vec<Case> {
    vec![
        wrong("another protocol", |_| b"SSH-2.0-nothing\r\n\r\n".to_vec()),
        wrong("an invalid status", |s| headed("HTTP/1.1 2xx OK\r\ncontent-length: 2\r\n\r\n", s)),
        wrong("a header without a colon", |s| with_lines(s, "nonsense\r\n")),
        wrong("a NUL in a header", |s| with_lines(s, "x-odd: a\0b\r\n")),
        wrong("a header of a megabyte", |s| with_lines(s, &format!("x-long: {}\r\n", "y".repeat(1 << 20)))),
        wrong("300 headers", |s| with_lines(s, &"x-many: y\r\n".repeat(300))),
        wrong("two lengths that differ", |_| {
            headed("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\ncontent-length: 9\r\n\r\n", false)
        }),
        wrong("a negative length", |_| headed("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: -1\r\n\r\n", false)),
        wrong("length and chunks", |_| [&with_lines(true, "content-length: 9\r\n")[..]].concat()),
        wrong("100 and 103 first", |s| [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_vec(), good(s)].concat()),
        wrong("101 switching protocols", |_| b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec()),
        wrong("204 and nothing", |_| b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        wrong("302 elsewhere", |_| b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_vec()),
        wrong("429 with Retry-After", |_| with_status(429, "retry-after: 7\r\n")),
        wrong("500", |_| with_status(500, "")),
        wrong("429 with an empty body", |_| b"HTTP/1.1 429 X\r\ncontent-length: 0\r\n\r\n".to_vec()),
        wrong("503 with Retry-After", |_| with_status(503, "retry-after: 7\r\n")),
    ]
}

fn with_status(status: u16, lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{lines}content-type: application/json\r\ncontent-length: 46\r\n\r\n{{\"error\":{{\"message\":\"theirs\",\"type\":\"theirs\"}}}}").into_bytes()
}

fn malformed_bodies() -> Vec<Case> {
    vec![
        wrong("HTML instead of an answer", |_| b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>".to_vec()),
        wrong("invalid JSON", |_| json_answer(200, "{\"choices\":[{\"mess")),
        wrong("an empty body", |_| json_answer(200, "")),
        wrong("an invalid chunk size", |s| broken_chunk(s, b"zz\r\n{}\r\n")),
        wrong("a chunk size beyond 64 bits", |s| broken_chunk(s, b"fffffffffffffffff\r\n{}\r\n")),
        wrong("a chunk longer than its size", |s| broken_chunk(s, b"2\r\n{\"longer\":1}\r\n")),
        wrong("an encoding that was not requested", |s| with_lines(s, "content-encoding: gzip\r\n")),
        wrong("usage that is text", |s| with_usage(s, r#""usage":{"prompt_tokens":"many","completion_tokens":7}"#)),
        wrong("usage below zero", |s| with_usage(s, r#""usage":{"prompt_tokens":-1,"completion_tokens":7}"#)),
        wrong("usage of a quintillion", |s| with_usage(s, r#""usage":{"prompt_tokens":1e18,"completion_tokens":99999999999999999999}"#)),
        wrong("usage twice", |s| {
            with_usage(s, r#""usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{"prompt_tokens":2,"completion_tokens":2}"#)
        }),
    ]
}

fn broken_chunk(streamed: bool, raw: &[u8]) -> Vec<u8> {
    let content_type = if streamed { "text/event-stream" } else { "application/json" };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n");
    [head.as_bytes(), &chunk(&frame("a")), raw].concat()
}

fn with_usage(streamed: bool, usage: &str) -> Vec<u8> {
    if streamed {
        stream_of(&[&frame("a"), format!("data: {{\"choices\":[],{usage}}}\n\n").as_bytes(), DONE])
    } else {
        json_answer(200, &format!("{{\"choices\":[{{\"message\":{{\"content\":\"yo\"}}}}],{usage}}}"))
    }
}

/// Whole answers have no frames, so they are good here.
fn frames(streamed: bool, frames: &[&[u8]]) -> Vec<u8> {
    if streamed { stream_of(frames) } else { good(false) }
}

fn malformed_streams() -> Vec<Case> {
    vec![
        wrong("stream: no end", |s| frames(s, &[&frame("a"), &frame("b")])),
        wrong("stream: empty", |s| frames(s, &[])),
        wrong("stream: a frame that is not JSON", |s| frames(s, &[b"data: {\"choices\n\n", USAGE_FRAME, DONE])),
        wrong("stream: a frame without its end", |s| frames(s, &[&frame("a"), b"data: {\"choices\":[]}"])),
        wrong("stream: a frame of 3 MB", |s| frames(s, &[&frame(&"y".repeat(3 << 20)), USAGE_FRAME, DONE])),
        wrong("stream: CRLF", |s| {
            frames(
                s,
                &[
                    b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n",
                    b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\r\n\r\ndata: [DONE]\r\n\r\n",
                ],
            )
        }),
        wrong("stream: no space after data:", |s| {
            frames(s, &[b"data:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata:{\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n", b"data:[DONE]\n\n"])
        }),
        wrong("stream: comments between", |s| frames(s, &[b": ping\n\n", &frame("a"), b": ping\n\n", USAGE_FRAME, DONE])),
        wrong("stream: an error frame of the engine", |s| {
            frames(s, &[&frame("a"), b"data: {\"error\":{\"message\":\"engine died\",\"code\":500}}\n\n", DONE])
        }),
        wrong("stream: a frame after its end", |s| frames(s, &[&frame("a"), USAGE_FRAME, DONE, &frame("late")])),
        wrong("stream: an end twice", |s| frames(s, &[&frame("a"), USAGE_FRAME, DONE, DONE])),
        wrong("stream: binary", |s| frames(s, &[b"\x00\xff\xfe\x00\x80 garbage", USAGE_FRAME, DONE])),
    ]
}

pub fn steps(answer: Vec<u8>) -> Vec<Step> {
    vec![Step::Send(answer)]
}
