//! Calls of endpoints that speak gRPC: connections of HTTP/2, shared by the calls of one thread.

use super::body::{Objection, Upgoing};
use super::relay::Running;
use super::status::{GRPC, TIMEOUT};
use crate::answer::header_of;
use crate::call::Call;
use crate::live::Phase;
use crate::problem::Problem;
use crate::upstream::{Begun, Failed};
use crate::worker::Worker;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tenon_policy::{Chosen, Refusal};
use tenon_snapshot::Target;
use tenon_usage::Outcome;

/// Calls on one connection before another is opened, and connections to one endpoint.
const CALLS_MAX: usize = 64;
const CONNECTIONS_MAX: usize = 8;
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Runs what a connection needs on the thread it belongs to.
#[derive(Clone, Copy)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

struct Line {
    sender: SendRequest<Upgoing>,
    running: Rc<Cell<usize>>,
}

/// One thread's connections, by the number of their target's pool.
#[derive(Default)]
pub struct Connections(RefCell<Vec<Vec<Line>>>);

impl Connections {
    /// The least busy connection that has room; with `full`, one that has none will do.
    fn checkout(&self, pool: usize) -> Option<(SendRequest<Upgoing>, Running)> {
        let mut pools = self.0.borrow_mut();
        let lines = pools.get_mut(pool)?;
        lines.retain(|line| !line.sender.is_closed());
        let least = lines.iter().min_by_key(|line| line.running.get())?;
        let has_room = least.running.get() < CALLS_MAX || lines.len() >= CONNECTIONS_MAX;
        has_room.then(|| (least.sender.clone(), Running::on(&least.running)))
    }

    fn keep(&self, pool: usize, sender: &SendRequest<Upgoing>) -> Running {
        let running = Rc::new(Cell::new(0));
        let first = Running::on(&running);
        let mut pools = self.0.borrow_mut();
        if pools.len() <= pool {
            pools.resize_with(pool + 1, Vec::new);
        }
        pools[pool].push(Line { sender: sender.clone(), running });
        first
    }
}

/// An endpoint that has begun to answer.
pub struct Answering {
    pub response: Response<Incoming>,
    pub running: Running,
    kept: bool,
}

impl Begun for Answering {
    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    fn is_on_kept_connection(&self) -> bool {
        self.kept
    }
}

/// What goes up, whichever route it takes.
pub struct Wish<'a> {
    pub headers: &'a HeaderMap,
    /// What the caller gave it, from its start.
    pub timeout: Option<Duration>,
    /// Makes the body for a route. `None` = the caller's stream has been taken by an attempt before.
    pub body: &'a dyn Fn(Option<&str>) -> Option<Upgoing>,
    /// What is wrong with the rest of the caller's stream: it was reset for that.
    pub objection: Option<&'a Objection>,
    /// Takes back what was not sent.
    pub take_back: &'a dyn Fn(Upgoing),
}

/// One attempt at the route that `call` has chosen.
pub async fn attempt(worker: &Worker, call: &Call, wish: &Wish<'_>) -> Result<Answering, Failed> {
    let Some((chosen, target)) = call.chosen().and_then(|chosen| Some((chosen, chosen.target()?))) else {
        return Err(Failed::Unsent(Refusal::NoUsableEndpoint.into(), None));
    };
    let live = &call.live;
    let mut timeouts = worker.limits.timeouts(&chosen.endpoint().timeouts);
    if let Some(told) = wish.timeout {
        timeouts.total = if timeouts.total.is_zero() { told } else { timeouts.total.min(told) };
    }
    live.limit(timeouts);
    let failed = Failed::Final(Problem::UPSTREAM, Outcome::UpstreamError);
    let Some(body) = (wish.body)(chosen.upstream_model()) else {
        return Err(failed);
    };
    let mut request = request(call, chosen, target, wish, body).ok_or(Failed::Final(Problem::PROTOCOL, Outcome::UpstreamError))?;
    loop {
        live.enter(Phase::Connect, worker.clock());
        let kept = worker.grpc.checkout(target.pool);
        let is_kept = kept.is_some();
        let (mut sender, running) = match kept {
            Some(kept) => kept,
            None => match connect(worker, call, target).await {
                Ok(fresh) => fresh,
                Err(failed) => {
                    (wish.take_back)(request.into_body());
                    return Err(failed);
                }
            },
        };
        live.enter(Phase::Headers, worker.clock());
        let sent = live.race(pin!(sender.try_send_request(request))).await?;
        match sent {
            Ok(response) => return Ok(Answering { response, running, kept: is_kept }),
            Err(mut error) => match error.take_message() {
                // The connection died while it was idle. Nothing was written, so the call may go again.
                Some(unsent) if is_kept => request = unsent,
                Some(unsent) => {
                    (wish.take_back)(unsent.into_body());
                    return Err(Failed::Unsent(Problem::CONNECT, None));
                }
                None => return Err(wish.objection.and_then(Objection::raised).map_or(failed, |problem| Failed::Final(problem, Outcome::Cut))),
            },
        }
    }
}

async fn connect(worker: &Worker, call: &Call, target: &Target) -> Result<(SendRequest<Upgoing>, Running), Failed> {
    let live = &call.live;
    let unsent = |error: String| Failed::Unsent(Problem::CONNECT, Some(error));
    let connecting = async {
        let stream = worker.pools.dial(target, true).await.map_err(|error| unsent(error.to_string()))?;
        let mut builder = http2::Builder::new(Local);
        builder.timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| unsent(error.to_string()))
    };
    let (sender, connection) = match live.race(Box::pin(connecting)).await {
        Ok(connected) => connected?,
        Err(cut) if cut.problem.code == Problem::CONNECT_TIMEOUT.code => {
            live.forgive();
            return Err(Failed::Unsent(cut.problem, None));
        }
        Err(cut) => return Err(cut.into()),
    };
    tokio::task::spawn_local(async move { drop(connection.await) });
    let running = worker.grpc.keep(target.pool, &sender);
    Ok((sender, running))
}

fn request(call: &Call, _: &Chosen, target: &Target, wish: &Wish<'_>, body: Upgoing) -> Option<Request<Upgoing>> {
    let scheme = if target.origin.tls { "https" } else { "http" };
    let authority = target.host_header.to_str().ok()?;
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(call.subject.door.path).build().ok()?;
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static("tenon-gateway"));
    headers.insert(header_of::REQUEST_ID, header_of::request_id(call.subject.id));
    if let Some(authorization) = &target.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if let Some(told) = wish.timeout {
        let left = told.saturating_sub(call.subject.started.elapsed()).as_millis().clamp(1, 99_999_999);
        headers.insert(TIMEOUT, HeaderValue::from_str(&format!("{left}m")).ok()?);
    }
    if let Some(traceparent) = &call.subject.trace.header {
        headers.insert(header_of::TRACEPARENT, traceparent.clone());
        copy(wish.headers, headers, &header_of::TRACESTATE);
    }
    Some(request)
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, name: &HeaderName) {
    if let Some(value) = from.get(name) {
        to.insert(name.clone(), value.clone());
    }
}
