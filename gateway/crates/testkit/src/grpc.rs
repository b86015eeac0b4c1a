//! gRPC in bytes: an endpoint that answers each message from a script, and a caller.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Piece = Result<Frame<Bytes>, Infallible>;

/// A request that the gateway sent, with one of its messages.
#[derive(Clone, Debug)]
pub struct GrpcRequest {
    pub path: String,
    pub headers: HeaderMap,
    pub message: Bytes,
}

#[derive(Clone, Debug)]
pub enum GrpcStep {
    Send(Vec<u8>),
    /// The end: a status.
    End(u8),
    /// The stream breaks off.
    Cut,
    /// Nothing more, indefinitely.
    Stall,
}

pub type GrpcScript = Vec<GrpcStep>;
type Script = dyn Fn(&GrpcRequest) -> GrpcScript + Send + Sync;

#[derive(Clone)]
pub struct GrpcUpstream {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<GrpcRequest>>>,
    /// Calls that ended before their answer did.
    pub cancelled: Arc<AtomicUsize>,
    script: Arc<Script>,
}

impl GrpcUpstream {
    /// `script` gives the steps after each message. A stream that the caller ends is completed.
    pub fn start(script: impl Fn(&GrpcRequest) -> GrpcScript + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Self { address, requests: Arc::default(), cancelled: Arc::default(), script: Arc::new(script) };
        let serving = upstream.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serving.serve(listener));
        });
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn serve(self, listener: std::net::TcpListener) {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let serving = self.clone();
            let service = hyper::service::service_fn(move |request| {
                let serving = serving.clone();
                async move { Ok::<_, Infallible>(serving.answer(request)) }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    }

    fn answer(&self, request: Request<Incoming>) -> Response<StreamBody<UnboundedReceiverStream<Piece>>> {
        let (parts, body) = request.into_parts();
        let (sender, receiver) = mpsc::unbounded_channel();
        let serving = self.clone();
        tokio::spawn(async move {
            let running = Running(serving.cancelled.clone());
            let path = parts.uri.path().to_owned();
            let complete = serving.serve_connection(path, parts.headers, body, &sender).await;
            if complete { running.completed() } else { sender.closed().await }
        });
        let mut response = Response::new(StreamBody::new(UnboundedReceiverStream::new(receiver)));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response
    }

    /// True when the answer was completed.
    async fn serve_connection(&self, path: String, headers: HeaderMap, mut body: Incoming, sender: &mpsc::UnboundedSender<Piece>) -> bool {
        let mut held = BytesMut::new();
        loop {
            while let Some(message) = next_message(&mut held) {
                let request = GrpcRequest { path: path.clone(), headers: headers.clone(), message };
                self.requests.lock().unwrap().push(request.clone());
                for step in (self.script)(&request) {
                    match step {
                        GrpcStep::Send(message) => drop(sender.send(Ok(Frame::data(frame(&message))))),
                        GrpcStep::End(status) => return sender.send(Ok(Frame::trailers(status_trailers(status)))).is_ok(),
                        GrpcStep::Cut => return true, // the body ends without a status
                        GrpcStep::Stall => return false,
                    }
                }
            }
            match body.frame().await {
                Some(Ok(frame)) => held.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(_)) => return false,
                None => return sender.send(Ok(Frame::trailers(status_trailers(0)))).is_ok(),
            }
        }
    }
}

struct Running(Arc<AtomicUsize>);

impl Running {
    fn completed(self) {
        std::mem::forget(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn status_trailers(status: u8) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), u16::from(status).into())])
}

fn frame(message: &[u8]) -> Bytes {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat().into()
}

fn next_message(held: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(held.get(1..5)?.try_into().ok()?) as usize;
    if held.len() < 5 + length {
        return None;
    }
    held.advance(5);
    Some(held.split_to(length).freeze())
}

/// The answer as a caller received it.
#[derive(Debug, Default)]
pub struct GrpcAnswer {
    pub headers: HeaderMap,
    pub messages: Vec<Bytes>,
    pub trailers: HeaderMap,
}

impl GrpcAnswer {
    fn end(&self, name: &str) -> &str {
        let value = self.trailers.get(name).or_else(|| self.headers.get(name));
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `None` = the answer broke off.
    pub fn status(&self) -> Option<u8> {
        self.end("grpc-status").parse().ok()
    }

    pub fn code(&self) -> String {
        self.end("tenon-code").to_owned()
    }

    pub fn request_id(&self) -> String {
        self.end("x-request-id").to_owned()
    }

    pub fn details(&self) -> String {
        self.end("grpc-status-details-bin").to_owned()
    }
}

/// A caller with one connection.
pub struct GrpcCaller {
    runtime: tokio::runtime::Runtime,
    sender: hyper::client::conn::http2::SendRequest<StreamBody<UnboundedReceiverStream<Piece>>>,
    address: SocketAddr,
}

impl GrpcCaller {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// Fails when no process listens, or the listener goes away.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (sender, connection) = shaken.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            Ok::<_, std::io::Error>(sender)
        })?;
        Ok(Self { runtime, sender, address })
    }

    /// Calls a method of the service with these messages and reads to the end, or until `leave_after` messages have come.
    pub fn call(&mut self, method: &str, headers: &[(&str, &str)], messages: &[Vec<u8>], leave_after: Option<usize>) -> GrpcAnswer {
        self.call_observed(method, headers, messages, leave_after, || {})
    }

    /// As [`Self::call`]; `on_message` is called when a message has come.
    pub fn call_observed(
        &mut self,
        method: &str,
        headers: &[(&str, &str)],
        messages: &[Vec<u8>],
        leave_after: Option<usize>,
        on_message: impl Fn(),
    ) -> GrpcAnswer {
        let (sender, receiver) = mpsc::unbounded_channel();
        messages.iter().for_each(|message| drop(sender.send(Ok(Frame::data(frame(message))))));
        let mut request = Request::builder()
            .method("POST")
            .uri(format!("http://{}/inference.GRPCInferenceService/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(StreamBody::new(UnboundedReceiverStream::new(receiver))).unwrap();
        // A caller who reads to the end has finished its request.
        let held = leave_after.map(|_| sender);
        let response = self.sender.send_request(request);
        let answer = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), read(response, leave_after, on_message)).await });
        let leaves = held.is_some();
        drop(held);
        if leaves {
            // The cancellation must be written to the connection.
            self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
        }
        answer.expect("an answer in time")
    }
}

async fn read(response: impl Future<Output = hyper::Result<Response<Incoming>>>, leave_after: Option<usize>, on_message: impl Fn()) -> GrpcAnswer {
    let mut answer = GrpcAnswer::default();
    let Ok(response) = response.await else {
        return answer;
    };
    let (parts, mut body) = response.into_parts();
    answer.headers = parts.headers;
    let mut held = BytesMut::new();
    while leave_after.is_none_or(|most| answer.messages.len() < most) {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => held.extend_from_slice(&data),
                Err(frame) => answer.trailers = frame.into_trailers().unwrap_or_default(),
            },
            Some(Err(_)) | None => return answer,
        }
        while let Some(message) = next_message(&mut held) {
            answer.messages.push(message);
            on_message();
        }
    }
    answer
}
