//! An open session. Events pass both ways, one at a time in each direction, so a slow reader holds its writer back and nothing piles up.
//!
//! It ends when either side closes, when its key is no longer valid, at a deadline, or when the gateway stops. Then an error event gives the
//! reason, its record is settled, and a close frame follows. Its code is 1008 for a policy, 1001 for a deadline or a stop, 1011 where the endpoint
//! failed.

use crate::base::problem::Problem;
use crate::call::guard::{Call, Measured};
use crate::protocols::realtime::events::ModelNames;
use crate::protocols::realtime::turns::{Turns, count_unrequested};
use crate::reactor::caller_connection::{CallerConnection, Close};
use crate::reactor::in_flight::{Abort, InFlightCall, Phase};
use crate::reactor::state::Reactor;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tenon_dialects::Dialect;
use tenon_dialects::realtime::{ServerEvent, UsageTally};
use tenon_policy::ChosenRoute;
use tenon_usage::{Outcome, RecordId, UsageSource};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Sink = Mutex<SplitSink<Socket, Message>>;

/// Both sides are pinged this often, or more often where the endpoint's idle timeout is short.
const PING_EVERY_MAX: Duration = Duration::from_secs(20);
/// For the last messages: a peer that does not read is not waited for any longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Which side ended it, and how.
enum Ending {
    Caller(Option<CloseFrame>),
    CallerGone,
    Endpoint(Option<CloseFrame>),
    /// With the error for the caller, the close code, and the outcome.
    Gateway(Problem, CloseCode, Outcome),
}

impl From<Abort> for Ending {
    fn from(abort: Abort) -> Self {
        match abort.timeout {
            true => Self::Gateway(abort.problem, CloseCode::Away, Outcome::Timeout),
            false => Self::Gateway(abort.problem, CloseCode::Policy, Outcome::Cut),
        }
    }
}

const CUT: Ending = Ending::Gateway(Problem::CUT, CloseCode::Error, Outcome::Cut);

struct Session {
    reactor: Rc<Reactor>,
    in_flight: Rc<InFlightCall>,
    call: RefCell<Box<Call>>,
    names: ModelNames,
    tally: RefCell<UsageTally>,
    turns: Turns,
    /// Error events sent by the gateway.
    errors_sent: Cell<u32>,
    to_caller: Sink,
    to_endpoint: Sink,
    caller_seen_at: Cell<Instant>,
    /// The gateway stops: the session ends when no response runs.
    stopping: Cell<bool>,
}

/// Runs the session to its end.
pub async fn run_session(reactor: Rc<Reactor>, call: Box<Call>, caller: Upgraded, endpoint: Upgraded) {
    let Some(chosen) = call.chosen().map(ChosenRoute::without_slot) else {
        return;
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(reactor.shared.limits.body_bytes_max))
        .max_frame_size(Some(reactor.shared.limits.body_bytes_max));
    let caller = WebSocketStream::from_raw_socket(TokioIo::new(caller), Role::Server, Some(config)).await;
    let endpoint = WebSocketStream::from_raw_socket(TokioIo::new(endpoint), Role::Client, Some(config)).await;
    let ((to_caller, mut from_caller), (to_endpoint, mut from_endpoint)) = (caller.split(), endpoint.split());
    let in_flight = call.in_flight.clone();
    let idle = reactor.upstreams.timeouts(&chosen.endpoint().timeouts).idle;
    let session = Session {
        names: ModelNames { key: in_flight.key.clone(), chosen },
        call: RefCell::new(call),
        tally: RefCell::default(),
        turns: Turns::default(),
        errors_sent: Cell::new(0),
        to_caller: Mutex::new(to_caller),
        to_endpoint: Mutex::new(to_endpoint),
        caller_seen_at: Cell::new(reactor.clock.now()),
        stopping: Cell::new(false),
        in_flight,
        reactor: reactor.clone(),
    };
    // The upgrade took the connection from the HTTP listener: registered again, a drain waits for it.
    let connection = Rc::new(CallerConnection::new(reactor.clock.now()));
    let _busy = connection.begin_request(reactor.clock.now());
    let slot = reactor.connections.insert(connection.clone());
    session.in_flight.enter(Phase::Stream, reactor.clock.now());
    let ending = tokio::select! {
        biased;
        ending = session.until_ended(&connection) => ending,
        ending = session.relay_down(&mut from_endpoint) => ending,
        ending = session.relay_up(&mut from_caller) => ending,
        ending = session.keep_alive(idle) => ending,
    };
    session.end(ending, &mut from_caller).await;
    reactor.connections.remove(slot);
}

impl Session {
    /// Until the call is aborted, or the gateway stops.
    async fn until_ended(&self, connection: &CallerConnection) -> Ending {
        poll_fn(|cx| {
            if let Some(abort) = self.in_flight.aborted() {
                return Poll::Ready(abort.into());
            }
            self.in_flight.park(cx.waker());
            match connection.poll_close(cx.waker()) {
                Some(Close::Now) => return Poll::Ready(Self::gateway_stopping()),
                Some(Close::Gracefully) => self.stopping.set(true),
                Some(Close::AfterNext) | None => {}
            }
            if self.stopping.get() && !self.tally.borrow().is_answering() { Poll::Ready(Self::gateway_stopping()) } else { Poll::Pending }
        })
        .await
    }

    fn gateway_stopping() -> Ending {
        Ending::Gateway(Problem::GOING_AWAY, CloseCode::Away, Outcome::Completed)
    }

    async fn relay_up(&self, stream: &mut SplitStream<Socket>) -> Ending {
        while let Some(message) = stream.next().await {
            self.caller_seen_at.set(self.reactor.clock.now());
            let passed = match message {
                Ok(Message::Text(text)) => self.names.pass(&self.reactor.shared.snapshots.load(), text, |cap| self.begin_response(cap)),
                Ok(Message::Binary(_)) => Err(Problem::NOT_TEXT.into()),
                Ok(Message::Close(frame)) => return Ending::Caller(frame),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Err(Error::Capacity(_)) => return Ending::Gateway(Problem::TOO_LARGE, CloseCode::Size, Outcome::Cut),
                Err(_) => return Ending::CallerGone,
            };
            let sent = match passed {
                Ok(event) => self.to_endpoint.lock().await.send(Message::Text(event)).await.map_err(|_| CUT),
                Err(refused) => self.send_error(&refused.problem, refused.event_id.as_deref()).await.map_err(|_| Ending::CallerGone),
            };
            if let Err(ending) = sent {
                return ending;
            }
        }
        Ending::CallerGone
    }

    async fn relay_down(&self, stream: &mut SplitStream<Socket>) -> Ending {
        while let Some(message) = stream.next().await {
            self.in_flight.enter(Phase::Stream, self.reactor.clock.now());
            let message = match message {
                Ok(Message::Text(text)) => {
                    self.observe(&text);
                    Message::Text(text)
                }
                Ok(Message::Binary(bytes)) => Message::Binary(bytes),
                Ok(Message::Close(frame)) => return Ending::Endpoint(frame),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Err(_) => return CUT,
            };
            if self.to_caller.lock().await.send(message).await.is_err() {
                return Ending::CallerGone;
            }
            if self.stopping.get() && !self.tally.borrow().is_answering() {
                return Self::gateway_stopping();
            }
        }
        CUT
    }

    fn observe(&self, text: &str) {
        let event = self.tally.borrow_mut().observe(text);
        match event {
            ServerEvent::Output => self.call.borrow_mut().first_token(),
            ServerEvent::ResponseDone(spent) => {
                self.count_by_responses();
                self.turns.end(&self.reactor.shared, &self.reactor.clock, &self.names, &spent);
            }
            ServerEvent::Transcribed(spent) => count_unrequested(&self.reactor.shared, &self.reactor.clock, &self.names, 0, &spent),
            ServerEvent::ResponseCreated => {}
            ServerEvent::Other => self.turns.check_refusal(&self.reactor.clock, text),
        }
    }

    /// The caller requests a response.
    fn begin_response(&self, max_output_tokens: Option<u64>) -> Result<(), Problem> {
        self.count_by_responses();
        self.turns.begin(&self.reactor.shared, &self.reactor.clock, &self.names, max_output_tokens).inspect_err(|problem| {
            self.reactor.observers.metrics().refusal(problem.code);
            self.call.borrow_mut().call_trace.limit = problem.exceeded();
        })
    }

    /// From its first response on, a session counts as many requests as it has responses; until then its opening counts as one.
    fn count_by_responses(&self) {
        if let Some(reservation) = self.call.borrow_mut().reservation() {
            reservation.give_back_requests();
        }
    }

    /// Pings both sides. A silent endpoint is ended by its idle timeout.
    async fn keep_alive(&self, idle: Duration) -> Ending {
        let every = if idle.is_zero() { PING_EVERY_MAX } else { (idle / 3).min(PING_EVERY_MAX) };
        let silence_max = self.reactor.shared.limits.connection_idle.max(every * 3);
        loop {
            tokio::time::sleep(every).await;
            if self.reactor.clock.now().saturating_duration_since(self.caller_seen_at.get()) > silence_max {
                return Ending::Gateway(Problem::CALLER_SILENT, CloseCode::Away, Outcome::ClientGone);
            }
            for sink in [&self.to_caller, &self.to_endpoint] {
                // A sink that is locked is in use, or its deadline will end it.
                if let Ok(mut sink) = sink.try_lock() {
                    let _ = tokio::time::timeout(every, sink.send(Message::Ping(Bytes::new()))).await;
                }
            }
        }
    }

    /// An error event, as the endpoint would write one, about one of the caller's.
    async fn send_error(&self, problem: &Problem, about: Option<&str>) -> Result<(), Error> {
        self.errors_sent.set(self.errors_sent.get() + 1);
        let event = error_event(problem, self.call.borrow().request.id, self.errors_sent.get(), about);
        self.to_caller.lock().await.send(Message::text(event)).await
    }

    async fn end(&self, ending: Ending, from_caller: &mut SplitStream<Socket>) {
        let outcome = match &ending {
            Ending::Caller(_) => Outcome::Completed,
            Ending::CallerGone => Outcome::ClientGone,
            Ending::Endpoint(frame) if is_good(frame.as_ref()) => Outcome::Completed,
            Ending::Endpoint(_) => Outcome::UpstreamError,
            Ending::Gateway(problem, _, outcome) => {
                self.call.borrow_mut().failed(problem.code, None);
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.send_error(problem, None)).await;
                *outcome
            }
        };
        self.settle(outcome);
        let ending = if self.is_on_disk().await {
            ending
        } else {
            self.call.borrow_mut().failed(Problem::UNMETERED.code, None);
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.send_error(&Problem::UNMETERED, None)).await;
            Ending::Gateway(Problem::UNMETERED, CloseCode::Error, outcome)
        };
        let (to_caller, to_endpoint) = match ending {
            Ending::Caller(frame) => (None, frame),
            Ending::CallerGone => (None, close(CloseCode::Away, "")),
            Ending::Endpoint(frame) => (frame, None),
            Ending::Gateway(problem, code, _) => (close(code, problem.code.text()), close(CloseCode::Away, "")),
        };
        let closing = async {
            let _ = self.to_endpoint.lock().await.send(Message::Close(to_endpoint)).await;
            let _ = self.to_caller.lock().await.send(Message::Close(to_caller)).await;
            // Closed with unread bytes, a connection is reset and the last messages are lost.
            while from_caller.next().await.is_some_and(|message| message.is_ok()) {}
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }

    fn settle(&self, outcome: Outcome) {
        let (usage, is_estimate) = self.tally.borrow().usage();
        let source = is_estimate.then_some(UsageSource::Estimated);
        self.call.borrow_mut().settle(outcome, Measured { usage, source, ..Measured::default() });
    }

    /// Whether the record is on the disk, where the operator requires that. The wait ends at the call's deadlines.
    async fn is_on_disk(&self) -> bool {
        let mark = self.call.borrow_mut().mark.take();
        let Some(mark) = mark else {
            return true;
        };
        let on_disk = poll_fn(|cx| mark.poll(cx));
        if self.in_flight.aborted().is_some() {
            return matches!(tokio::time::timeout(CLOSE_TIMEOUT, on_disk).await, Ok(Ok(())));
        }
        matches!(self.in_flight.race(on_disk).await, Ok(Ok(())))
    }
}

/// A refusal by a limit has the protocol's own code and the time after which to try again.
fn error_event(problem: &Problem, id: RecordId, number: u32, about: Option<&str>) -> String {
    let body = problem.body(id, Dialect::OpenAi);
    let mut error = serde_json::from_slice(&body).map_or(Value::Null, |mut body: Value| body["error"].take());
    if let Value::Object(error) = &mut error {
        error.insert("event_id".into(), about.into());
        if problem.exceeded().is_some() {
            error.insert("code".into(), "rate_limit_exceeded".into());
            error.insert("retry_after_seconds".into(), problem.retry_after().map(|wait| wait.as_secs()).into());
        }
    }
    format!(r#"{{"type":"error","event_id":"event_{}_{number}","error":{error}}}"#, &*id.text())
}

fn close(code: CloseCode, reason: &'static str) -> Option<CloseFrame> {
    Some(CloseFrame { code, reason: reason.into() })
}

fn is_good(frame: Option<&CloseFrame>) -> bool {
    frame.is_none_or(|frame| matches!(frame.code, CloseCode::Normal | CloseCode::Away | CloseCode::Status))
}
