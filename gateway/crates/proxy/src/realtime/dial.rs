//! The endpoint's side of a session: its own handshake, on a connection of its own.

use super::handshake::{BETA, encoded};
use crate::answer::header_of;
use crate::call::Call;
use crate::live::Phase;
use crate::outgoing::Outgoing;
use crate::problem::Problem;
use crate::upstream::{Begun, Failed};
use crate::worker::Worker;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::pin::pin;
use tenon_dialects::openai::Pieces;
use tenon_policy::{Chosen, Refusal};
use tenon_snapshot::Target;
use tenon_usage::Outcome;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub enum Dialed {
    Open(Upgraded),
    /// It answered as plain HTTP.
    Refused(Response<Incoming>),
}

impl Begun for Dialed {
    fn status(&self) -> u16 {
        match self {
            Self::Open(_) => 101,
            Self::Refused(response) => response.status().as_u16(),
        }
    }

    fn is_on_kept_connection(&self) -> bool {
        false
    }
}

/// One attempt at the route that `call` has chosen.
pub async fn dial(worker: &Worker, call: &Call, beta: bool) -> Result<Dialed, Failed> {
    let Some((chosen, target)) = call.chosen().and_then(|chosen| Some((chosen, chosen.target()?))) else {
        return Err(Failed::Unsent(Refusal::NoUsableEndpoint.into(), None));
    };
    let live = &call.live;
    live.limit(worker.limits.timeouts(&chosen.endpoint().timeouts));
    live.enter(Phase::Connect, worker.clock());
    let stream = match live.race(pin!(worker.pools.dial(target, false))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failed::Unsent(Problem::CONNECT, Some(error.to_string()))),
        Err(cut) if cut.problem.code == Problem::CONNECT_TIMEOUT.code => {
            live.forgive();
            return Err(Failed::Unsent(cut.problem, None));
        }
        Err(cut) => return Err(cut.into()),
    };
    live.enter(Phase::Headers, worker.clock());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| Failed::Unsent(Problem::CONNECT, Some(error.to_string())))?;
    tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
    let key = generate_key();
    let request = request(call, chosen, target, &key, beta).ok_or(Failed::Final(Problem::PROTOCOL, Outcome::UpstreamError))?;
    let failed = Failed::Final(Problem::UPSTREAM, Outcome::UpstreamError);
    let Ok(response) = live.race(pin!(sender.send_request(request))).await? else {
        return Err(failed);
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Dialed::Refused(response));
    }
    let accepted =
        response.headers().get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
    if !accepted {
        return Err(Failed::Final(Problem::PROTOCOL, Outcome::UpstreamError));
    }
    live.race(hyper::upgrade::on(response)).await?.map(Dialed::Open).map_err(|_| failed)
}

fn request(call: &Call, chosen: &Chosen, target: &Target, key: &str, beta: bool) -> Option<Request<Outgoing>> {
    let model = encoded(chosen.upstream_model().unwrap_or(&chosen.model.name));
    let path: Uri = format!("{}/realtime?model={model}", target.path_prefix).parse().ok()?;
    let mut request = Request::new(Outgoing(Pieces::One(Bytes::new())));
    *request.uri_mut() = path;
    let headers = request.headers_mut();
    headers.insert(HOST, target.host_header.clone());
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(key).ok()?);
    headers.insert(USER_AGENT, HeaderValue::from_static("tenon-gateway"));
    headers.insert(header_of::REQUEST_ID, header_of::request_id(call.subject.id));
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if beta {
        headers.insert(BETA, HeaderValue::from_static("realtime=v1"));
    }
    if let Some(traceparent) = &call.subject.trace.header {
        headers.insert(header_of::TRACEPARENT, traceparent.clone());
    }
    Some(request)
}
