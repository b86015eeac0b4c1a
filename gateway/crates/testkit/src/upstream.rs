//! An upstream that follows a script, byte by byte.

use crate::wait::wait_for;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request that the gateway sent.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl ReceivedRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// Waits until the test sets the flag.
    Until(Arc<AtomicBool>),
    /// Closes the connection; without it, the next request on the connection is read.
    Close,
    /// Reads until the gateway closes, and counts it as a cancel.
    UntilGone,
}

type Script = dyn Fn(&ReceivedRequest) -> Vec<Step> + Send + Sync;

#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<ReceivedRequest>>>,
    pub cancelled: Arc<AtomicUsize>,
    pub connections: Arc<AtomicUsize>,
    script: Arc<Mutex<Arc<Script>>>,
}

impl Upstream {
    pub fn start(script: impl Fn(&ReceivedRequest) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script: Arc<Script> = Arc::new(script);
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            cancelled: Arc::default(),
            connections: Arc::default(),
            script: Arc::new(Mutex::new(script)),
        };
        let serving = upstream.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve_connection(&stream));
            }
        });
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn respond(&self, script: impl Fn(&ReceivedRequest) -> Vec<Step> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub fn last(&self) -> ReceivedRequest {
        self.requests.lock().unwrap().last().cloned().expect("there was no request")
    }

    pub fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn serve_connection(&self, stream: &TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader) {
            self.requests.lock().unwrap().push(request.clone());
            let script = self.script.lock().unwrap().clone();
            for step in script(&request) {
                let going = match step {
                    Step::Send(bytes) => (&*stream).write_all(&bytes).is_ok(),
                    Step::Wait(time) => {
                        std::thread::sleep(time);
                        true
                    }
                    Step::Until(flag) => {
                        wait_for("the test sets the flag", || flag.load(Ordering::SeqCst));
                        true
                    }
                    Step::Close => {
                        let _ = stream.shutdown(Shutdown::Both);
                        false
                    }
                    Step::UntilGone => {
                        let mut rest = Vec::new();
                        let _ = reader.read_to_end(&mut rest);
                        self.cancelled.fetch_add(1, Ordering::SeqCst);
                        false
                    }
                };
                if !going {
                    return;
                }
            }
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<ReceivedRequest> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = ReceivedRequest { line: line.trim_end().to_owned(), headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

pub fn json_answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Head of a stream that ends with its connection; frames follow as they are.
pub fn sse_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_vec()
}
