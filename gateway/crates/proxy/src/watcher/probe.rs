//! One GET beside the calls: with the endpoint's address rules, without its credential, bounded in time and size.

use super::Subject;
use crate::addresses::Resolver;
use crate::sender::{self, Tls};
use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;

const BYTES_MAX: usize = 1 << 20;

pub type Sender = sender::Sender<String>;

pub struct Prober {
    pub resolver: Resolver,
    pub tls: Tls,
}

impl Prober {
    /// The answer's status and body. `kept` is a connection from one time to the next: a look every second needs no handshake every second.
    pub async fn ask(&self, subject: &Subject, kept: &mut Option<Sender>) -> io::Result<(StatusCode, Vec<u8>)> {
        if let Some(sender) = kept.take().filter(|sender| !sender.is_closed())
            && let Ok(answer) = exchange(sender, subject, kept).await
        {
            return Ok(answer);
        }
        let sender = self.tls.connect(&self.resolver, &subject.origin).await?;
        exchange(sender, subject, kept).await
    }
}

async fn exchange(mut sender: Sender, subject: &Subject, kept: &mut Option<Sender>) -> io::Result<(StatusCode, Vec<u8>)> {
    let mut request = Request::new(String::new());
    *request.uri_mut() = subject.path.parse().map_err(io::Error::other)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&subject.host).map_err(io::Error::other)?);
    headers.insert(ACCEPT, HeaderValue::from_static("text/plain;version=0.0.4, */*;q=0.1"));
    headers.insert(USER_AGENT, HeaderValue::from_static("tenon-gateway"));
    sender.ready().await.map_err(io::Error::other)?;
    let response = sender.try_send_request(request).await.map_err(|error| io::Error::other(error.into_error()))?;
    let status = response.status();
    let body = read(response.into_body()).await?;
    *kept = Some(sender);
    Ok((status, body))
}

async fn read(mut body: Incoming) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let data: Bytes = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
        if bytes.len() + data.len() > BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is longer than 1 MiB"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
