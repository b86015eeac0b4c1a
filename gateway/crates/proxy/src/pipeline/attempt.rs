//! One attempt at one endpoint: the request is sent, and the beginning of the answer is read. Which endpoint is tried next is `failover`'s.

use crate::base::problem::Problem;
use crate::call::guard::Call;
use crate::observe::metrics::bump;
use crate::pipeline::upstream_request::{CallerRequest, RequestError, request};
use crate::reactor::clock::Clock;
use crate::reactor::in_flight::{Abort, InFlightCall, Phase};
use crate::reactor::observers::Observers;
use crate::reactor::upstreams::Upstreams;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;
use tenon_dialects::translate::Direction;
use tenon_policy::Refusal;
use tenon_problem::ProblemCode;
use tenon_snapshot::Target;
use tenon_upstream::pool::Sender;
use tenon_upstream::request_body::RequestBody;
use tenon_usage::Outcome;

/// An endpoint's answer that has begun, and its connection. Nothing was passed to the caller yet: until the first bytes of a good answer, a
/// failure still gets an error of its own.
pub struct UpstreamResponse {
    pub response: Response<Incoming>,
    /// The first bytes of a good answer, taken out of the body.
    pub first: Option<Bytes>,
    /// Of the whole body, where the endpoint sent it.
    pub length: Option<u64>,
    pub sender: Sender,
    pub pool: usize,
    /// On a connection that was used before.
    pub kept_connection: bool,
    /// How the answer becomes one of the caller's dialect; `None` = it is one.
    pub direction: Option<Direction>,
}

impl UpstreamResponse {
    /// A good answer that comes as events.
    pub fn is_good_stream(&self) -> bool {
        let content_type = self.response.headers().get(CONTENT_TYPE);
        self.response.status().is_success() && content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
    }
}

/// The head of an answer, in whatever protocol.
pub trait ResponseHead {
    fn status(&self) -> u16;
    /// On a connection that was used before.
    fn is_on_kept_connection(&self) -> bool;
    /// When it wants to be called again. Dates are not read: model endpoints send numbers.
    fn retry_after_seconds(&self) -> Option<u64> {
        None
    }
}

impl ResponseHead for UpstreamResponse {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn is_on_kept_connection(&self) -> bool {
        self.kept_connection
    }

    fn retry_after_seconds(&self) -> Option<u64> {
        self.response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
    }
}

/// Why an attempt failed.
pub enum AttemptError {
    /// Nothing was sent. With the system's error.
    Unsent(Problem, Option<String>),
    /// The request cannot be translated into the endpoint's dialect. Another route may take it; the endpoint is not to blame.
    Untranslatable(Problem),
    /// The request was sent, at least in part, and nothing of an answer was passed to the caller.
    Unanswered(Problem, Outcome),
    /// Trying elsewhere is pointless, or not allowed.
    Final(Problem, Outcome),
}

impl From<Abort> for AttemptError {
    fn from(abort: Abort) -> Self {
        let endpoints_own = [ProblemCode::UpstreamHeadersTimeout, ProblemCode::UpstreamFirstTokenTimeout];
        match abort.timeout {
            true if endpoints_own.contains(&abort.problem.code) => Self::Unanswered(abort.problem, Outcome::Timeout),
            true => Self::Final(abort.problem, Outcome::Timeout),
            false => Self::Final(abort.problem, Outcome::Cut),
        }
    }
}

/// A kept connection that is closed so soon after a request was sent was probably being closed already.
const CROSSED_WITHIN: Duration = Duration::from_millis(500);

/// One attempt, at the call's chosen route. When the endpoint closes a kept connection as the request goes out, and sends nothing, the request
/// is sent once more, on a new connection. Some engines close after each stream without announcing it.
///
/// # Errors
/// Why it gave no answer.
pub async fn attempt(
    upstreams: &Upstreams,
    clock: &Clock,
    observers: &Observers,
    call: &Call,
    caller_request: &CallerRequest<'_>,
) -> Result<UpstreamResponse, AttemptError> {
    let Some((chosen, target)) = call.chosen().and_then(|chosen| Some((chosen, chosen.target()?))) else {
        return Err(AttemptError::Unsent(Refusal::NoUsableEndpoint.into(), None));
    };
    let in_flight = &call.in_flight;
    in_flight.set_timeouts(upstreams.timeouts(&chosen.endpoint().timeouts));
    let (mut message, direction) = request(call, chosen, target, caller_request).map_err(|error| no_request(error, caller_request))?;
    let mut crossed = false;
    loop {
        in_flight.enter(Phase::Connect, clock.now());
        let kept = if crossed { None } else { upstreams.pools.checkout(target).await };
        let fresh = kept.is_none();
        let mut sender = match kept {
            Some(sender) => sender,
            // Boxed: a TLS handshake is several kilobytes, which every call would carry although few connect.
            None => Box::pin(connect(upstreams, call, target)).await?,
        };
        in_flight.enter(Phase::Headers, clock.now());
        let (sent_at, received) = (clock.now(), sender.bytes_received());
        let sent = in_flight.race(pin!(sender.try_send_request(message))).await?;
        let error = match sent {
            Ok(mut response) => {
                let length = response.body().size_hint().exact();
                in_flight.enter(Phase::FirstToken, clock.now());
                let first = first_bytes(in_flight, &mut response).await?;
                return Ok(UpstreamResponse { response, first, length, sender, pool: target.pool, kept_connection: !fresh, direction });
            }
            Err(error) => error,
        };
        let is_silent = received.is_some() && received == sender.bytes_received();
        let closed = is_silent && is_closed(error.error()) && sent_at.elapsed() < CROSSED_WITHIN;
        message = match take_back(error) {
            // The connection was closed while it was in the pool. Nothing was sent, so the request may go again.
            Some(unsent) if !fresh => unsent,
            Some(_) => return Err(AttemptError::Unsent(Problem::CONNECT, None)),
            None if !fresh && closed => {
                crossed = true;
                request(call, chosen, target, caller_request).map_err(|error| no_request(error, caller_request))?.0
            }
            None => return Err(AttemptError::Unanswered(Problem::UPSTREAM, Outcome::UpstreamError)),
        };
        bump(&observers.metrics().failures[1], 1);
    }
}

fn no_request(error: RequestError, caller_request: &CallerRequest<'_>) -> AttemptError {
    match error {
        RequestError::Address => AttemptError::Final(Problem::PROTOCOL, Outcome::UpstreamError),
        RequestError::Untranslatable(refused) => {
            let problem = Problem::untranslatable(&refused);
            caller_request.refused.replace(Some(Box::new(refused)));
            AttemptError::Untranslatable(problem)
        }
    }
}

/// The first bytes of a good answer; for others there is no wait.
async fn first_bytes(in_flight: &InFlightCall, response: &mut Response<Incoming>) -> Result<Option<Bytes>, AttemptError> {
    if !response.status().is_success() {
        return Ok(None);
    }
    // An HTML page comes from some other server: a proxy's status page, or a portal that wants a log-in.
    if response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html")) {
        return Err(AttemptError::Unanswered(Problem::PROTOCOL, Outcome::UpstreamError));
    }
    let body = response.body_mut();
    loop {
        match in_flight.race(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await? {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) => return Err(AttemptError::Unanswered(Problem::CUT, Outcome::Cut)),
            // A good answer has a body.
            None => return Err(AttemptError::Unanswered(Problem::PROTOCOL, Outcome::UpstreamError)),
        }
    }
}

/// By the endpoint, before a whole head came.
fn is_closed(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.is_incomplete_message() || io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

fn take_back(mut error: hyper::client::conn::TrySendError<Request<RequestBody>>) -> Option<Request<RequestBody>> {
    error.take_message()
}

async fn connect(upstreams: &Upstreams, call: &Call, target: &Target) -> Result<Sender, AttemptError> {
    match call.in_flight.race(pin!(upstreams.pools.connect(target))).await {
        Ok(Ok(sender)) => Ok(sender),
        Ok(Err(error)) => Err(AttemptError::Unsent(Problem::CONNECT, Some(error.to_string()))),
        Err(abort) if abort.problem.code == Problem::CONNECT_TIMEOUT.code => {
            call.in_flight.clear_timeout();
            Err(AttemptError::Unsent(abort.problem, None))
        }
        Err(abort) => Err(abort.into()),
    }
}

/// What the caller gets instead of an endpoint's refusal that it must not see; `None` = the refusal is passed on.
pub fn hidden_status(status: u16) -> Option<Problem> {
    match status {
        401 | 403 | 407 => Some(Problem::CREDENTIAL),
        400..=499 => None,
        503 | 529 => Some(Problem::OVERLOADED),
        500..=599 => Some(Problem::UPSTREAM),
        _ => Some(Problem::PROTOCOL),
    }
}
