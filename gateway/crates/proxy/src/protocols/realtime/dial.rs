//! The endpoint's side of a session: its own handshake, on a connection of its own.

use crate::base::headers;
use crate::base::percent::encoded;
use crate::base::problem::Problem;
use crate::call::guard::Call;
use crate::pipeline::attempt::{AttemptError, ResponseHead};
use crate::protocols::realtime::handshake::BETA;
use crate::reactor::clock::Clock;
use crate::reactor::in_flight::Phase;
use crate::reactor::upstreams::Upstreams;
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
use tenon_dialects::Pieces;
use tenon_policy::{ChosenRoute, Refusal};
use tenon_snapshot::Target;
use tenon_upstream::request_body::RequestBody;
use tenon_usage::Outcome;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub enum Dialed {
    Open(Upgraded),
    /// It answered with plain HTTP.
    Refused(Response<Incoming>),
}

impl ResponseHead for Dialed {
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
pub async fn dial(upstreams: &Upstreams, clock: &Clock, call: &Call, beta: bool) -> Result<Dialed, AttemptError> {
    let Some((chosen, target)) = call.chosen().and_then(|chosen| Some((chosen, chosen.target()?))) else {
        return Err(AttemptError::Unsent(Refusal::NoUsableEndpoint.into(), None));
    };
    let in_flight = &call.in_flight;
    in_flight.set_timeouts(upstreams.timeouts(&chosen.endpoint().timeouts));
    in_flight.enter(Phase::Connect, clock.now());
    let stream = match in_flight.race(pin!(upstreams.pools.dial(target, false))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(AttemptError::Unsent(Problem::CONNECT, Some(error.to_string()))),
        Err(abort) if abort.problem.code == Problem::CONNECT_TIMEOUT.code => {
            in_flight.clear_timeout();
            return Err(AttemptError::Unsent(abort.problem, None));
        }
        Err(abort) => return Err(abort.into()),
    };
    in_flight.enter(Phase::Headers, clock.now());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| AttemptError::Unsent(Problem::CONNECT, Some(error.to_string())))?;
    tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
    let key = generate_key();
    let request = request(call, chosen, target, &key, beta).ok_or(AttemptError::Final(Problem::PROTOCOL, Outcome::UpstreamError))?;
    let failed = AttemptError::Final(Problem::UPSTREAM, Outcome::UpstreamError);
    let Ok(response) = in_flight.race(pin!(sender.send_request(request))).await? else {
        return Err(failed);
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Dialed::Refused(response));
    }
    let accepted =
        response.headers().get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept.as_bytes() == derive_accept_key(key.as_bytes()).as_bytes());
    if !accepted {
        return Err(AttemptError::Final(Problem::PROTOCOL, Outcome::UpstreamError));
    }
    in_flight.race(hyper::upgrade::on(response)).await?.map(Dialed::Open).map_err(|_| failed)
}

fn request(call: &Call, chosen: &ChosenRoute, target: &Target, key: &str, beta: bool) -> Option<Request<RequestBody>> {
    let model = encoded(chosen.upstream_model().unwrap_or(&chosen.model.name));
    let path: Uri = format!("{}/realtime?model={model}", target.path_prefix).parse().ok()?;
    let mut request = Request::new(RequestBody(Pieces::One(Bytes::new())));
    *request.uri_mut() = path;
    let headers = request.headers_mut();
    headers.insert(HOST, target.host_header.clone());
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(key).ok()?);
    headers.insert(USER_AGENT, HeaderValue::from_static("tenon-gateway"));
    headers.insert(headers::REQUEST_ID, headers::request_id(call.request.id));
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if beta {
        headers.insert(BETA, HeaderValue::from_static("realtime=v1"));
    }
    if let Some(traceparent) = &call.request.trace.header {
        headers.insert(headers::TRACEPARENT, traceparent.clone());
    }
    Some(request)
}
