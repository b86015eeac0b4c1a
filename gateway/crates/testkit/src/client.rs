//! A plain HTTP client that shows every detail of an answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body ended as its head announced.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn request_id(&self) -> String {
        self.header("x-request-id").unwrap_or_default().to_owned()
    }
}

/// A request that was sent, read as slowly as the test likes.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    pub fn send(to: SocketAddr, raw: &[u8]) -> Self {
        let mut client = Self::connect(to).unwrap();
        client.write(raw).unwrap();
        client
    }

    pub fn write(&mut self, raw: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(raw)
    }

    pub fn post(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let mut raw = format!("POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| raw += &format!("{name}: {value}\r\n"));
        Self::send(to, (raw + "\r\n" + body).as_bytes())
    }

    /// Waits until the answer begins, without reading it.
    pub fn wait_begins(&mut self) {
        let _ = self.reader.fill_buf();
    }

    pub fn head(&mut self) -> Answer {
        self.try_head().unwrap()
    }

    pub fn try_head(&mut self) -> std::io::Result<Answer> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut answer = Answer { status, headers: Vec::new(), body: Vec::new(), complete: false };
        loop {
            let mut header = String::new();
            self.reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(": ") else {
                return Ok(answer);
            };
            answer.headers.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The next chunk of a chunked body; `None` at its end. `Err` when it broke off.
    pub fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut size = String::new();
        if self.reader.read_line(&mut size)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    /// Reads until these bytes or the end of the connection.
    pub fn rest_until(&mut self, last: &[u8]) -> Vec<u8> {
        let mut rest = Vec::new();
        while !rest.ends_with(last) {
            let mut byte = [0];
            if !matches!(self.reader.read(&mut byte), Ok(1)) {
                break;
            }
            rest.push(byte[0]);
        }
        rest
    }

    pub fn finish(mut self) -> Answer {
        let mut answer = self.head();
        self.read_body(&mut answer);
        answer
    }

    /// Reads until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    pub fn read_body(&mut self, answer: &mut Answer) {
        if matches!(answer.status, 204 | 304) {
            answer.complete = true; // no body, whatever the head says (RFC 9112 §6.3)
            return;
        }
        if let Some(length) = answer.header("content-length").and_then(|value| value.parse::<usize>().ok()) {
            let mut body = vec![0; length];
            answer.complete = self.reader.read_exact(&mut body).is_ok();
            answer.body = body;
            return;
        }
        loop {
            match self.chunk() {
                Ok(Some(chunk)) => answer.body.extend(chunk),
                Ok(None) => {
                    answer.complete = true;
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

pub fn post(to: SocketAddr, path: &str, key: &str, body: &str) -> Answer {
    Client::post(to, path, &[("authorization", &format!("Bearer {key}"))], body).finish()
}

pub fn get(to: SocketAddr, path: &str, key: &str) -> Answer {
    let authorization = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
    Client::send(to, format!("GET {path} HTTP/1.1\r\nhost: gateway\r\n{authorization}\r\n").as_bytes()).finish()
}
