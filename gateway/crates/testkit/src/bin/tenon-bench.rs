//! The peers of a gateway in benchmarks, each in its own process so that its work is not counted as the gateway's:
//!
//! - `tenon-bench stream-server <address> <gap ms>`: an engine that streams `max_tokens` frames of about 200 bytes, `gap` apart, the first at once;
//! - `tenon-bench stream-load <url> <key> <streams> <frames> <seconds>`: that many streams at a time; one line of JSON at the end;
//! - `tenon-bench relay <address> <upstream address>`: hyper on both sides and nothing else, the floor of what a gateway on hyper can cost.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods)]

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match words[..] {
            ["stream-server", address, gap] => serve_streams(address.parse().unwrap(), Duration::from_millis(gap.parse().unwrap())).await,
            ["stream-load", url, key, streams, frames, seconds] => {
                let load = Load::new(url, key, frames.parse().unwrap(), Duration::from_secs_f64(seconds.parse().unwrap()));
                println!("{}", load.run(streams.parse().unwrap()).await);
            }
            ["relay", address, upstream] => relay(address.parse().unwrap(), upstream.parse().unwrap()).await,
            _ => panic!("see the head of this file"),
        }
    });
}

async fn accepted(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().await.expect("accept");
    stream.set_nodelay(true).unwrap();
    stream
}

async fn serve_streams(address: SocketAddr, gap: Duration) {
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let stream = accepted(&listener).await;
        tokio::task::spawn_local(async move { drop(serve_connection(stream, gap).await) });
    }
}

fn chunk(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

async fn serve_connection(mut stream: TcpStream, gap: Duration) -> std::io::Result<()> {
    let text = "lorem ipsum dolor sit amet ".repeat(3);
    let frame = chunk(&format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    ));
    let usage = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9}}\n\n";
    let end = [chunk(usage), chunk("data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()].concat();
    let mut held = Vec::new();
    while let Some(body) = request(&mut stream, &mut held).await? {
        let digits = body.split("\"max_tokens\":").nth(1).map_or("", |rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or(""));
        let frames: usize = digits.parse().unwrap_or(1);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        for number in 0..frames {
            if number > 0 {
                tokio::time::sleep(gap).await;
            }
            stream.write_all(&frame).await?;
        }
        stream.write_all(&end).await?;
    }
    Ok(())
}

/// The body of the next request; what was read beyond it stays in `held`.
async fn request(stream: &mut TcpStream, held: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    loop {
        if let Some(head) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&held[..head]).to_ascii_lowercase();
            let length = text.split("content-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok()).unwrap_or(0);
            if held.len() >= head + 4 + length {
                let rest = held.split_off(head + 4 + length);
                let body = String::from_utf8_lossy(&held[head + 4..]).into_owned();
                *held = rest;
                return Ok(Some(body));
            }
        }
        let mut piece = [0; 8192];
        match stream.read(&mut piece).await? {
            0 => return Ok(None),
            read => held.extend_from_slice(&piece[..read]),
        }
    }
}

struct Load {
    address: String,
    request: Vec<u8>,
    until: Instant,
    counts: RefCell<Counts>,
}

#[derive(Default)]
struct Counts {
    first_us: Vec<u64>,
    frames: u64,
    streams: u64,
    broken: u64,
}

impl Load {
    fn new(url: &str, key: &str, frames: u32, time: Duration) -> Rc<Self> {
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let words = "the quick brown fox ".repeat(40);
        let body = format!(
            "{{\"model\":\"m\",\"stream\":true,\"stream_options\":{{\"include_usage\":true}},\"max_tokens\":{frames},\"messages\":[{{\"role\":\"user\",\"content\":\"{words}\"}}]}}"
        );
        let head = format!(
            "POST /{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.into_bytes(), body.into_bytes()].concat();
        Rc::new(Self { address: address.to_owned(), request, until: Instant::now() + time, counts: RefCell::default() })
    }

    async fn run(self: Rc<Self>, streams: usize) -> serde_json::Value {
        let start = Instant::now();
        let tasks: Vec<_> = (0..streams)
            .map(|number| {
                let load = self.clone();
                tokio::task::spawn_local(async move {
                    // Not all at once: a queue of five thousand connects measures the queue.
                    tokio::time::sleep(Duration::from_micros(200 * number as u64)).await;
                    load.caller().await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let mut counts = self.counts.borrow_mut();
        counts.first_us.sort_unstable();
        let at = |share: f64| counts.first_us.get((counts.first_us.len() as f64 * share) as usize).copied().unwrap_or(0);
        serde_json::json!({
            "streams": counts.streams, "broken": counts.broken, "frames": counts.frames, "seconds": start.elapsed().as_secs_f64(),
            "first_p50_us": at(0.5), "first_p99_us": at(0.99),
        })
    }

    async fn caller(&self) {
        let Ok(mut stream) = TcpStream::connect(&self.address).await else {
            self.counts.borrow_mut().broken += 1;
            return;
        };
        stream.set_nodelay(true).unwrap();
        while Instant::now() < self.until {
            match self.one(&mut stream).await {
                Ok(true) => self.counts.borrow_mut().streams += 1,
                _ => {
                    self.counts.borrow_mut().broken += 1;
                    return;
                }
            }
        }
    }

    /// Whether the stream ended as it should.
    async fn one(&self, stream: &mut TcpStream) -> std::io::Result<bool> {
        let begun = Instant::now();
        stream.write_all(&self.request).await?;
        let mut tail = Vec::new();
        let mut first = true;
        let mut piece = [0; 16 << 10];
        loop {
            let read = stream.read(&mut piece).await?;
            if read == 0 {
                return Ok(false);
            }
            let frames = piece[..read].windows(6).filter(|six| *six == b"data: ").count() as u64;
            let mut counts = self.counts.borrow_mut();
            if first && frames > 0 {
                first = false;
                counts.first_us.push(u64::try_from(begun.elapsed().as_micros()).unwrap());
            }
            counts.frames += frames;
            drop(counts);
            tail.extend_from_slice(&piece[..read]);
            if tail.ends_with(b"0\r\n\r\n") {
                return Ok(true);
            }
            tail.drain(..tail.len().saturating_sub(5));
        }
    }
}

type Idle = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

async fn relay(address: SocketAddr, upstream: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    let idle = Idle::default();
    loop {
        let stream = accepted(&listener).await;
        let idle = idle.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| pass(idle.clone(), upstream, request));
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn pass(idle: Idle, upstream: SocketAddr, request: Request<Incoming>) -> Result<Response<Kept>, hyper::Error> {
    let kept = idle.borrow_mut().pop().filter(SendRequest::is_ready);
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            let stream = TcpStream::connect(upstream).await.expect("the upstream listens");
            stream.set_nodelay(true).unwrap();
            let (sender, connection) = client::handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(async move { drop(connection.await) });
            sender
        }
    };
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| Kept { body, sender: Some(sender), idle }))
}

/// Gives the connection back when the answer has passed.
struct Kept {
    body: Incoming,
    sender: Option<SendRequest<Incoming>>,
    idle: Idle,
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        let polled = std::pin::Pin::new(&mut self.body).poll_frame(cx);
        if self.body.is_end_stream() {
            let sender = self.sender.take();
            self.idle.borrow_mut().extend(sender);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
