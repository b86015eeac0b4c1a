//! One attempt at one upstream: what goes up, and the beginning of what comes back. Who is tried, and who next, is `failover`.

use crate::ask::{Unsayable, request};
use crate::call::Call;
use crate::doors::Door;
use crate::live::{Cut, Live, Phase};
use crate::metrics::bump;
use crate::outgoing::Outgoing;
use crate::pool::Sender;
use crate::problem::Problem;
use crate::worker::Worker;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use std::cell::RefCell;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;
use tenon_dialects::translate::{Direction, Refused};
use tenon_dialects::{Form, Head};
use tenon_policy::Refusal;
use tenon_snapshot::Target;
use tenon_usage::Outcome;

/// What goes up, whichever route it takes.
pub struct Prepared<'a> {
    pub body: &'a Bytes,
    pub head: &'a Head<'a>,
    pub door: &'static Door,
    pub form: Form,
    pub ask_usage: bool,
    pub headers: &'a HeaderMap,
    /// Why the last route that was looked at could not be told what the caller asks.
    pub refused: RefCell<Option<Box<Refused>>>,
}

/// An upstream that has begun to answer, and its connection. Until here nothing was given to the caller: what fails before the first bytes of
/// a good answer can still be told as what it is.
pub struct Answering {
    pub response: Response<Incoming>,
    /// The first bytes of a good answer, taken out of the body.
    pub first: Option<Bytes>,
    /// Of the whole body, where the upstream said so.
    pub length: Option<u64>,
    pub sender: Sender,
    pub pool: usize,
    /// On a connection that was used before.
    pub kept_connection: bool,
    /// How the answer becomes one of the caller's dialect; `None` = it is one.
    pub direction: Option<Direction>,
}

impl Answering {
    /// A good answer that comes as events.
    pub fn is_good_stream(&self) -> bool {
        let content_type = self.response.headers().get(CONTENT_TYPE);
        self.response.status().is_success() && content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
    }
}

/// What an attempt that succeeded gives.
pub trait Begun {
    fn status(&self) -> u16;
    /// On a connection that was used before.
    fn is_on_kept_connection(&self) -> bool;
    /// When it wants to be asked again, in seconds. Dates are not read: upstreams of models send numbers.
    fn retry_after_seconds(&self) -> Option<u64> {
        None
    }
}

impl Begun for Answering {
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
pub enum Failed {
    /// Nothing was written. With what the system said.
    Unsent(Problem, Option<String>),
    /// The endpoint's dialect has no words for the request: another route may. No fault of the endpoint's.
    Untranslatable(Problem),
    /// It was written, at least in part, and nothing of an answer was given to the caller.
    Unanswered(Problem, Outcome),
    /// Trying elsewhere is pointless, or not allowed.
    Final(Problem, Outcome),
}

impl From<Cut> for Failed {
    fn from(cut: Cut) -> Self {
        let endpoints_own = [Problem::HEADERS_TIMEOUT.code, Problem::FIRST_TOKEN_TIMEOUT.code];
        match cut.timeout {
            true if endpoints_own.contains(&cut.problem.code) => Self::Unanswered(cut.problem, Outcome::Timeout),
            true => Self::Final(cut.problem, Outcome::Timeout),
            false => Self::Final(cut.problem, Outcome::Cut),
        }
    }
}

/// A connection that is closed so soon after it was used again was being closed when the request went out, for all that is known.
const CROSSED_WITHIN: Duration = Duration::from_millis(500);

/// One attempt, at the call's chosen route. A kept connection that its endpoint closed as the request went out, without a word, is no answer
/// either: the request goes again, once, on a new one. Some engines close after each stream without saying that they will.
///
/// # Errors
/// Why it gave no answer.
pub async fn attempt(worker: &Worker, call: &Call, prepared: &Prepared<'_>) -> Result<Answering, Failed> {
    let Some((chosen, target)) = call.chosen().and_then(|chosen| Some((chosen, chosen.target()?))) else {
        return Err(Failed::Unsent(Refusal::NoUsableEndpoint.into(), None));
    };
    let live = &call.live;
    live.limit(worker.limits.timeouts(&chosen.endpoint().timeouts));
    let (mut message, direction) = request(call, chosen, target, prepared).map_err(|unsayable| unsaid(unsayable, prepared))?;
    let mut crossed = false;
    loop {
        live.enter(Phase::Connect, worker.clock());
        let kept = if crossed { None } else { worker.pools.checkout(target).await };
        let fresh = kept.is_none();
        let mut sender = match kept {
            Some(sender) => sender,
            // Boxed: a TLS handshake is several kilobytes, which every call would carry although few connect.
            None => Box::pin(connect(worker, call, target)).await?,
        };
        live.enter(Phase::Headers, worker.clock());
        let (asked, heard) = (worker.clock(), sender.heard());
        let sent = live.race(pin!(sender.try_send_request(message))).await?;
        let error = match sent {
            Ok(mut response) => {
                let length = response.body().size_hint().exact();
                live.enter(Phase::FirstToken, worker.clock());
                let first = first_bytes(live, &mut response).await?;
                return Ok(Answering { response, first, length, sender, pool: target.pool, kept_connection: !fresh, direction });
            }
            Err(error) => error,
        };
        let wordless = heard.is_some() && heard == sender.heard();
        let closed = wordless && is_closed(error.error()) && asked.elapsed() < CROSSED_WITHIN;
        message = match take_back(error) {
            // It died while it lay in the pool. Nothing was written, so the call may go again.
            Some(unsent) if !fresh => unsent,
            Some(_) => return Err(Failed::Unsent(Problem::CONNECT, None)),
            None if !fresh && closed => {
                crossed = true;
                request(call, chosen, target, prepared).map_err(|unsayable| unsaid(unsayable, prepared))?.0
            }
            None => return Err(Failed::Unanswered(Problem::UPSTREAM, Outcome::UpstreamError)),
        };
        bump(&worker.metrics().failures[1], 1);
    }
}

fn unsaid(unsayable: Unsayable, prepared: &Prepared<'_>) -> Failed {
    match unsayable {
        Unsayable::Address => Failed::Final(Problem::PROTOCOL, Outcome::UpstreamError),
        Unsayable::Refused(refused) => {
            let problem = Problem::untranslatable(&refused);
            prepared.refused.replace(Some(Box::new(refused)));
            Failed::Untranslatable(problem)
        }
    }
}

/// Of a good answer; others are not waited for.
async fn first_bytes(live: &Live, response: &mut Response<Incoming>) -> Result<Option<Bytes>, Failed> {
    if !response.status().is_success() {
        return Ok(None);
    }
    // A page for people is some other server's: a proxy that says it is well, a portal that wants a log-in.
    if response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
        return Err(Failed::Unanswered(Problem::PROTOCOL, Outcome::UpstreamError));
    }
    let body = response.body_mut();
    loop {
        match live.race(poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await? {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) => return Err(Failed::Unanswered(Problem::CUT, Outcome::Cut)),
            // A good answer says something.
            None => return Err(Failed::Unanswered(Problem::PROTOCOL, Outcome::UpstreamError)),
        }
    }
}

/// By the other side, before it said anything whole.
fn is_closed(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.is_incomplete_message() || io.is_some_and(|io| matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

fn take_back(mut error: hyper::client::conn::TrySendError<Request<Outgoing>>) -> Option<Request<Outgoing>> {
    error.take_message()
}

async fn connect(worker: &Worker, call: &Call, target: &Target) -> Result<Sender, Failed> {
    match call.live.race(pin!(worker.pools.connect(target))).await {
        Ok(Ok(sender)) => Ok(sender),
        Ok(Err(error)) => Err(Failed::Unsent(Problem::CONNECT, Some(error.to_string()))),
        Err(cut) if cut.problem.code == Problem::CONNECT_TIMEOUT.code => {
            call.live.forgive();
            Err(Failed::Unsent(cut.problem, None))
        }
        Err(cut) => Err(cut.into()),
    }
}
