//! An upstream that does what a script says, byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the gateway sent.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
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
    /// Goes on when the test says so.
    Until(Arc<AtomicBool>),
    /// Ends the connection here; without it, the next request on the connection is read.
    Close,
    /// Reads until the gateway closes, and counts it as a cancel.
    UntilGone,
}

type Script = dyn Fn(&Asked) -> Vec<Step> + Send + Sync;

#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub cancelled: Arc<AtomicUsize>,
    pub connections: Arc<AtomicUsize>,
    script: Arc<Mutex<Arc<Script>>>,
}

impl Upstream {
    pub fn start(script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script: Arc<Script> = Arc::new(script);
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            cancelled: Arc::default(),
            connections: Arc::default(),
            script: Arc::new(Mutex::new(script)),
        };
        let serving = upstream.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let serving = serving.clone();
                std::thread::spawn(move || serving.converse(&stream));
            }
        });
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn say(&self, script: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().cloned().expect("nothing was asked")
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn converse(&self, stream: &TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream);
        while let Some(asked) = read_request(&mut reader) {
            self.asked.lock().unwrap().push(asked.clone());
            let script = self.script.lock().unwrap().clone();
            for step in script(&asked) {
                let going = match step {
                    Step::Send(bytes) => (&*stream).write_all(&bytes).is_ok(),
                    Step::Wait(time) => {
                        std::thread::sleep(time);
                        true
                    }
                    Step::Until(word) => {
                        crate::wait_for("the test's word", || word.load(Ordering::SeqCst));
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

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
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
    let mut asked = Asked { line: line.trim_end().to_owned(), headers, body: Vec::new() };
    let length = asked.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    asked.body.resize(length, 0);
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

pub fn json_answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Head of a stream that ends with its connection; frames follow as they are.
pub fn sse_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_vec()
}
