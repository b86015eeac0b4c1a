//! WebSockets: a scripted endpoint and a caller.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, WebSocket};

/// The endpoint's end of one session.
pub type ServerSocket = WebSocket<TcpStream>;

/// A request's target and headers.
pub type Opened = (String, Vec<(String, String)>);

#[derive(Clone)]
pub struct WebSocketUpstream {
    pub address: SocketAddr,
    /// The request's target and headers of each session.
    pub opened: Arc<Mutex<Vec<Opened>>>,
    /// The text messages received, of all sessions.
    pub received: Arc<Mutex<Vec<String>>>,
    /// The close code that the other side sent for each session; `None` = it sent none.
    pub closed: Arc<Mutex<Vec<Option<u16>>>>,
}

impl WebSocketUpstream {
    /// `answer` is called with each text message, and may send on the socket.
    pub fn start(answer: impl Fn(&str, &mut ServerSocket) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self { address: listener.local_addr().unwrap(), opened: Arc::default(), received: Arc::default(), closed: Arc::default() };
        let (serving, answer) = (upstream.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (serving, answer) = (serving.clone(), answer.clone());
                std::thread::spawn(move || serving.serve_connection(stream, &*answer));
            }
        });
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    #[allow(clippy::result_large_err)] // the library's own type
    fn serve_connection(&self, stream: TcpStream, answer: &dyn Fn(&str, &mut ServerSocket)) {
        stream.set_nodelay(true).unwrap();
        let note = |request: &Request, response: Response| {
            let headers = request.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
            self.opened.lock().unwrap().push((request.uri().to_string(), headers.collect()));
            Ok(response)
        };
        let Ok(mut socket) = tungstenite::accept_hdr(stream, note) else {
            return;
        };
        loop {
            match socket.read() {
                Ok(Message::Text(text)) => {
                    self.received.lock().unwrap().push(text.to_string());
                    answer(&text, &mut socket);
                }
                Ok(Message::Close(frame)) => {
                    self.closed.lock().unwrap().push(Some(frame.map_or(1005, |frame| frame.code.into())));
                    let _ = socket.flush();
                    return;
                }
                Ok(_) => {}
                Err(Error::ConnectionClosed) => return,
                Err(_) => {
                    self.closed.lock().unwrap().push(None);
                    return;
                }
            }
        }
    }
}

/// A caller's end of a session.
pub struct WebSocketCaller {
    pub socket: WebSocket<TcpStream>,
    pub request_id: String,
    pub protocol: Option<String>,
}

impl WebSocketCaller {
    /// # Errors
    /// The status and body of a refusal.
    pub fn open(to: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut request = tungstenite::http::Request::builder()
            .uri(format!("ws://gateway{target}"))
            .header("host", "gateway")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", tungstenite::handshake::client::generate_key());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match tungstenite::client(request.body(()).unwrap(), stream) {
            Ok((socket, response)) => {
                let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
                Ok(Self { socket, request_id: header("x-request-id").unwrap_or_default(), protocol: header("sec-websocket-protocol") })
            }
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                Err((response.status().as_u16(), String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned()))
            }
            Err(other) => panic!("no handshake: {other}"),
        }
    }

    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next text.
    pub fn receive(&mut self) -> serde_json::Value {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).unwrap(),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                other => panic!("no text but {other:?}"),
            }
        }
    }

    /// Reads until the close frame and returns its code; 1006 = there was none.
    pub fn closed(&mut self) -> u16 {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => {
                    let _ = self.socket.flush();
                    return frame.map_or(1005, |frame: CloseFrame| frame.code.into());
                }
                Ok(_) => {}
                Err(_) => return 1006,
            }
        }
    }

    /// Writes bytes beside the protocol.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).unwrap();
    }

    /// Until the other side has closed the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.socket.get_mut().read_to_end(&mut rest);
        rest
    }
}
