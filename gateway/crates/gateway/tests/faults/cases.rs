//! What can go wrong between a gateway and an endpoint.

use crate::support::{DONE, USAGE_FRAME, frame};
use std::time::Duration;
use tenon_testkit::{Fault, Step, json_answer};

/// A fault at a place in the answer.
type Spoil = fn(usize) -> Fault;

/// How the endpoint is reached.
#[derive(Clone, Copy, Debug)]
pub enum Road {
    Refused,
    /// Its queue of connections is full: nothing answers a SYN.
    Unaccepting,
    AcceptsLate,
    /// Through the fault proxy.
    Through(Fault),
    /// As [`Self::Through`], at a place in the answer.
    At(Spoil, Place),
}

/// A place in an answer, whatever its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Start,
    StatusLine,
    Headers,
    AfterHead,
    Body,
    /// Before the last byte: of the JSON, or of the chunk that ends a stream.
    Last,
}

impl Place {
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
    pub road: Road,
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
    [STREAM_HEAD.to_vec(), frames.iter().flat_map(|frame| chunk(frame)).collect(), END.to_vec()].concat()
}

pub fn good(streamed: bool) -> Vec<u8> {
    if streamed { stream_of(&[&frame("a"), &frame("b"), USAGE_FRAME, DONE]) } else { json_answer(200, ANSWER) }
}

/// The good answer under another head.
fn headed(head: &str, streamed: bool) -> Vec<u8> {
    let good = good(streamed);
    let body = Place::AfterHead.of(&good);
    [head.as_bytes(), &good[body..]].concat()
}

/// A good answer with more header lines.
fn with_lines(streamed: bool, lines: &str) -> Vec<u8> {
    let good = good(streamed);
    let at = Place::AfterHead.of(&good) - 2;
    [&good[..at], lines.as_bytes(), &good[at..]].concat()
}

impl Case {
    pub fn races(&self) -> bool {
        matches!(self.road, Road::Through(Fault::CloseAtOnce | Fault::ResetAtOnce))
    }
}

fn case(name: &str, road: Road) -> Case {
    Case { name: name.into(), road, answer: good, large_request: false }
}

fn wrong(name: &str, answer: fn(bool) -> Vec<u8>) -> Case {
    Case { name: name.into(), road: Road::Through(Fault::None), answer, large_request: false }
}

pub fn all() -> Vec<Case> {
    let mut cases = network();
    let kinds: [(&str, Spoil); 4] =
        [("reset", Fault::ResetAt), ("closed", Fault::CloseAt), ("half closed", Fault::HalfCloseAt), ("silent", Fault::SilentAt)];
    let places = [
        (Place::Start, "before the answer"),
        (Place::StatusLine, "in the status line"),
        (Place::Headers, "in the headers"),
        (Place::AfterHead, "after the head"),
        (Place::Body, "in the body"),
        (Place::Last, "before the last byte"),
    ];
    for (kind, fault) in kinds {
        cases.extend(places.map(|(place, text)| case(&format!("{kind} {text}"), Road::At(fault, place))));
    }
    cases.extend(malformed_heads());
    cases.extend(malformed_bodies());
    cases.extend(malformed_streams());
    cases
}

fn network() -> Vec<Case> {
    let ms = Duration::from_millis;
    vec![
        case("nothing", Road::Through(Fault::None)),
        case("40 ms of latency each way", Road::Through(Fault::Latency(ms(40)))),
        case("accepts late", Road::AcceptsLate),
        case("refuses connections", Road::Refused),
        case("never accepts", Road::Unaccepting),
        case("closes at once", Road::Through(Fault::CloseAtOnce)),
        case("resets at once", Road::Through(Fault::ResetAtOnce)),
        case("swallows everything", Road::Through(Fault::Blackhole)),
        Case { large_request: true, ..case("never reads a large request", Road::Through(Fault::Deaf)) },
        case("drips, fast enough", Road::Through(Fault::Drip(0, ms(1)))),
        case("drips its head too slowly", Road::Through(Fault::Drip(0, ms(60)))),
        case("drips its body too slowly", Road::At(|at| Fault::Drip(at, Duration::from_millis(100)), Place::AfterHead)),
    ]
}

fn malformed_heads() -> Vec<Case> {
    vec![
        wrong("another protocol", |_| b"SSH-2.0-nothing\r\n\r\n".to_vec()),
        wrong("a status that is none", |s| headed("HTTP/1.1 2xx OK\r\ncontent-length: 2\r\n\r\n", s)),
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
        wrong("429 without a word", |_| b"HTTP/1.1 429 X\r\ncontent-length: 0\r\n\r\n".to_vec()),
        wrong("503 with Retry-After", |_| with_status(503, "retry-after: 7\r\n")),
    ]
}

fn with_status(status: u16, lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{lines}content-type: application/json\r\ncontent-length: 46\r\n\r\n{{\"error\":{{\"message\":\"theirs\",\"type\":\"theirs\"}}}}").into_bytes()
}

fn malformed_bodies() -> Vec<Case> {
    vec![
        wrong("HTML instead of an answer", |_| b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>".to_vec()),
        wrong("JSON that is none", |_| json_answer(200, "{\"choices\":[{\"mess")),
        wrong("an empty body", |_| json_answer(200, "")),
        wrong("a chunk size that is none", |s| broken_chunk(s, b"zz\r\n{}\r\n")),
        wrong("a chunk size beyond 64 bits", |s| broken_chunk(s, b"fffffffffffffffff\r\n{}\r\n")),
        wrong("a chunk longer than its size", |s| broken_chunk(s, b"2\r\n{\"longer\":1}\r\n")),
        wrong("an encoding nobody asked for", |s| with_lines(s, "content-encoding: gzip\r\n")),
        wrong("usage that is text", |s| said(s, r#""usage":{"prompt_tokens":"many","completion_tokens":7}"#)),
        wrong("usage below zero", |s| said(s, r#""usage":{"prompt_tokens":-1,"completion_tokens":7}"#)),
        wrong("usage of a quintillion", |s| said(s, r#""usage":{"prompt_tokens":1e18,"completion_tokens":99999999999999999999}"#)),
        wrong("usage twice", |s| said(s, r#""usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{"prompt_tokens":2,"completion_tokens":2}"#)),
    ]
}

fn broken_chunk(streamed: bool, raw: &[u8]) -> Vec<u8> {
    let kind = if streamed { "text/event-stream" } else { "application/json" };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
    [head.as_bytes(), &chunk(&frame("a")), raw].concat()
}

fn said(streamed: bool, usage: &str) -> Vec<u8> {
    if streamed {
        stream_of(&[&frame("a"), format!("data: {{\"choices\":[],{usage}}}\n\n").as_bytes(), DONE])
    } else {
        json_answer(200, &format!("{{\"choices\":[{{\"message\":{{\"content\":\"yo\"}}}}],{usage}}}"))
    }
}

/// Whole answers have no frames: they are good here.
fn frames(streamed: bool, frames: &[&[u8]]) -> Vec<u8> {
    if streamed { stream_of(frames) } else { good(false) }
}

fn malformed_streams() -> Vec<Case> {
    vec![
        wrong("stream: no end", |s| frames(s, &[&frame("a"), &frame("b")])),
        wrong("stream: nothing at all", |s| frames(s, &[])),
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
        wrong("stream: more after its end", |s| frames(s, &[&frame("a"), USAGE_FRAME, DONE, &frame("late")])),
        wrong("stream: an end twice", |s| frames(s, &[&frame("a"), USAGE_FRAME, DONE, DONE])),
        wrong("stream: binary", |s| frames(s, &[b"\x00\xff\xfe\x00\x80 garbage", USAGE_FRAME, DONE])),
    ]
}

pub fn steps(answer: Vec<u8>) -> Vec<Step> {
    vec![Step::Send(answer)]
}
