//! One GET of a health check: under the endpoint's address rules, without its credential, bounded in size.

use crate::connection;
use crate::connector::Connector;
use crate::health::check::Check;
use crate::resolver::Resolver;
use bytes::Bytes;
use http::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;

const BYTES_MAX: usize = 1 << 20;

pub type Sender = connection::Sender<String>;

pub struct Prober {
    pub resolver: Resolver,
    pub connector: Connector,
}

impl Prober {
    /// The answer's status and body. `kept` is the connection between two checks: a check every second needs no handshake every second.
    pub async fn get(&self, check: &Check, kept: &mut Option<Sender>) -> io::Result<(StatusCode, Vec<u8>)> {
        if let Some(sender) = kept.take().filter(|sender| !sender.is_closed())
            && let Ok(answer) = exchange(sender, check, kept).await
        {
            return Ok(answer);
        }
        let sender = self.connector.connect(&self.resolver, &check.origin).await?;
        exchange(sender, check, kept).await
    }
}

async fn exchange(mut sender: Sender, check: &Check, kept: &mut Option<Sender>) -> io::Result<(StatusCode, Vec<u8>)> {
    let mut request = Request::new(String::new());
    *request.uri_mut() = check.path.parse().map_err(io::Error::other)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(&check.host).map_err(io::Error::other)?);
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
