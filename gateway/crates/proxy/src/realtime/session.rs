//! An open session: events pass both ways, one at a time in each direction, so a slow reader holds its writer back and nothing piles up.
//!
//! It ends when either side closes, when its key stands no more, at a deadline, or when the gateway stops; then an error event says why, its
//! record is settled, and a close frame follows: 1008 for what policy ended, 1001 for a deadline or a stop, 1011 where the endpoint failed.

use super::events::Names;
use super::turns::{Turns, count};
use crate::call::{Call, Measured};
use crate::connection::{Leave, Watch};
use crate::live::{Cut, Live, Phase};
use crate::problem::Problem;
use crate::worker::Worker;
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
use tenon_dialects::realtime::{ServerEvent, Tally};
use tenon_policy::Chosen;
use tenon_usage::{Outcome, RecordId, UsageSource};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Sink = Mutex<SplitSink<Socket, Message>>;

/// Both sides are asked for a sign of life this often, or more often where the endpoint's idle time is short.
const PING_EVERY_MAX: Duration = Duration::from_secs(20);
/// For goodbyes: nobody waits longer for a peer that does not read.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who ended it, and how.
enum Ending {
    Caller(Option<CloseFrame>),
    CallerGone,
    Endpoint(Option<CloseFrame>),
    /// By us: what the caller is told, the close code, and the outcome.
    Ours(Problem, CloseCode, Outcome),
}

impl From<Cut> for Ending {
    fn from(cut: Cut) -> Self {
        match cut.timeout {
            true => Self::Ours(cut.problem, CloseCode::Away, Outcome::Timeout),
            false => Self::Ours(cut.problem, CloseCode::Policy, Outcome::Cut),
        }
    }
}

const CUT: Ending = Ending::Ours(Problem::CUT, CloseCode::Error, Outcome::Cut);

struct Session {
    worker: Rc<Worker>,
    live: Rc<Live>,
    call: RefCell<Box<Call>>,
    names: Names,
    tally: RefCell<Tally>,
    turns: Turns,
    /// Error events of our own.
    objections: Cell<u32>,
    to_caller: Sink,
    to_endpoint: Sink,
    caller_heard: Cell<Instant>,
    /// The gateway stops: the session ends when no answer runs.
    leaving: Cell<bool>,
}

/// Runs the session to its end.
pub async fn converse(worker: Rc<Worker>, call: Box<Call>, caller: Upgraded, endpoint: Upgraded) {
    let Some(chosen) = call.chosen().map(Chosen::unheld) else {
        return;
    };
    let config = WebSocketConfig::default().max_message_size(Some(worker.limits.body_bytes_max)).max_frame_size(Some(worker.limits.body_bytes_max));
    let caller = WebSocketStream::from_raw_socket(TokioIo::new(caller), Role::Server, Some(config)).await;
    let endpoint = WebSocketStream::from_raw_socket(TokioIo::new(endpoint), Role::Client, Some(config)).await;
    let ((to_caller, mut from_caller), (to_endpoint, mut from_endpoint)) = (caller.split(), endpoint.split());
    let live = call.live.clone();
    let idle = worker.limits.timeouts(&chosen.endpoint().timeouts).idle;
    let session = Session {
        names: Names { key: live.key.clone(), chosen },
        call: RefCell::new(call),
        tally: RefCell::default(),
        turns: Turns::default(),
        objections: Cell::new(0),
        to_caller: Mutex::new(to_caller),
        to_endpoint: Mutex::new(to_endpoint),
        caller_heard: Cell::new(worker.clock()),
        leaving: Cell::new(false),
        live,
        worker: worker.clone(),
    };
    // Its connection was left to it: a drain must see that it still runs.
    let watch = Rc::new(Watch::new(worker.clock()));
    let _busy = watch.begin(worker.clock());
    let place = worker.connections.insert(watch.clone());
    session.live.enter(Phase::Stream, worker.clock());
    let ending = tokio::select! {
        biased;
        ending = session.told(&watch) => ending,
        ending = session.relay_down(&mut from_endpoint) => ending,
        ending = session.relay_up(&mut from_caller) => ending,
        ending = session.keep_alive(idle) => ending,
    };
    session.end(ending, &mut from_caller).await;
    worker.connections.remove(place);
}

impl Session {
    /// Until the call is ended from outside, or the gateway stops.
    async fn told(&self, watch: &Watch) -> Ending {
        poll_fn(|cx| {
            if let Some(cut) = self.live.cut() {
                return Poll::Ready(cut.into());
            }
            self.live.park(cx.waker());
            match watch.told(cx.waker()) {
                Some(Leave::Now) => return Poll::Ready(Self::stopping()),
                Some(Leave::Gracefully) => self.leaving.set(true),
                Some(Leave::AfterNext) | None => {}
            }
            if self.leaving.get() && !self.tally.borrow().is_answering() { Poll::Ready(Self::stopping()) } else { Poll::Pending }
        })
        .await
    }

    fn stopping() -> Ending {
        Ending::Ours(Problem::GOING_AWAY, CloseCode::Away, Outcome::Completed)
    }

    async fn relay_up(&self, stream: &mut SplitStream<Socket>) -> Ending {
        while let Some(message) = stream.next().await {
            self.caller_heard.set(self.worker.clock());
            let passed = match message {
                Ok(Message::Text(text)) => self.names.pass(&self.worker.snapshots.load(), text, |cap| self.ask(cap)),
                Ok(Message::Binary(_)) => Err(Problem::NOT_TEXT.into()),
                Ok(Message::Close(frame)) => return Ending::Caller(frame),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Err(Error::Capacity(_)) => return Ending::Ours(Problem::TOO_LARGE, CloseCode::Size, Outcome::Cut),
                Err(_) => return Ending::CallerGone,
            };
            let sent = match passed {
                Ok(event) => self.to_endpoint.lock().await.send(Message::Text(event)).await.map_err(|_| CUT),
                Err(stopped) => self.tell(&stopped.problem, stopped.event_id.as_deref()).await.map_err(|_| Ending::CallerGone),
            };
            if let Err(ending) = sent {
                return ending;
            }
        }
        Ending::CallerGone
    }

    async fn relay_down(&self, stream: &mut SplitStream<Socket>) -> Ending {
        while let Some(message) = stream.next().await {
            self.live.enter(Phase::Stream, self.worker.clock());
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
            if self.leaving.get() && !self.tally.borrow().is_answering() {
                return Self::stopping();
            }
        }
        CUT
    }

    fn observe(&self, text: &str) {
        let event = self.tally.borrow_mut().observe(text);
        match event {
            ServerEvent::Output => self.call.borrow_mut().first_token(),
            ServerEvent::ResponseDone(spent) => {
                self.counts_by_its_answers();
                self.turns.end(&self.worker, &self.names, &spent);
            }
            ServerEvent::Transcribed(spent) => count(&self.worker, &self.names, 0, &spent),
            ServerEvent::ResponseCreated => {}
            ServerEvent::Other => self.turns.look(&self.worker, text),
        }
    }

    /// The caller asks for an answer.
    fn ask(&self, max_output_tokens: Option<u64>) -> Result<(), Problem> {
        self.counts_by_its_answers();
        self.turns.begin(&self.worker, &self.names, max_output_tokens).inspect_err(|problem| {
            self.worker.metrics().refusal(problem.code);
            self.call.borrow_mut().trail.limit = problem.exceeded();
        })
    }

    /// From its first answer on a session is as many requests as it has answers; until then its opening is one.
    fn counts_by_its_answers(&self) {
        if let Some(grant) = self.call.borrow_mut().grant() {
            grant.give_back_requests();
        }
    }

    /// Asks both sides for signs of life; what the endpoint's silence means, its deadline says.
    async fn keep_alive(&self, idle: Duration) -> Ending {
        let every = if idle.is_zero() { PING_EVERY_MAX } else { (idle / 3).min(PING_EVERY_MAX) };
        let silence_max = self.worker.limits.connection_idle.max(every * 3);
        loop {
            tokio::time::sleep(every).await;
            if self.worker.clock().saturating_duration_since(self.caller_heard.get()) > silence_max {
                return Ending::Ours(Problem::CALLER_SILENT, CloseCode::Away, Outcome::ClientGone);
            }
            for sink in [&self.to_caller, &self.to_endpoint] {
                // One that is busy is alive, or its deadline will tell.
                if let Ok(mut sink) = sink.try_lock() {
                    let _ = tokio::time::timeout(every, sink.send(Message::Ping(Bytes::new()))).await;
                }
            }
        }
    }

    /// An error event, as the endpoint would write one, about one of the caller's.
    async fn tell(&self, problem: &Problem, about: Option<&str>) -> Result<(), Error> {
        self.objections.set(self.objections.get() + 1);
        let event = error_event(problem, self.call.borrow().subject.id, self.objections.get(), about);
        self.to_caller.lock().await.send(Message::text(event)).await
    }

    async fn end(&self, ending: Ending, from_caller: &mut SplitStream<Socket>) {
        let outcome = match &ending {
            Ending::Caller(_) => Outcome::Completed,
            Ending::CallerGone => Outcome::ClientGone,
            Ending::Endpoint(frame) if is_good(frame.as_ref()) => Outcome::Completed,
            Ending::Endpoint(_) => Outcome::UpstreamError,
            Ending::Ours(problem, _, outcome) => {
                self.call.borrow_mut().trouble(problem.code, None);
                let _ = tokio::time::timeout(FAREWELL, self.tell(problem, None)).await;
                *outcome
            }
        };
        self.settle(outcome);
        let ending = if self.is_on_disk().await {
            ending
        } else {
            self.call.borrow_mut().trouble(Problem::UNMETERED.code, None);
            let _ = tokio::time::timeout(FAREWELL, self.tell(&Problem::UNMETERED, None)).await;
            Ending::Ours(Problem::UNMETERED, CloseCode::Error, outcome)
        };
        let (to_caller, to_endpoint) = match ending {
            Ending::Caller(frame) => (None, frame),
            Ending::CallerGone => (None, close(CloseCode::Away, "")),
            Ending::Endpoint(frame) => (frame, None),
            Ending::Ours(problem, code, _) => (close(code, problem.code), close(CloseCode::Away, "")),
        };
        let farewell = async {
            let _ = self.to_endpoint.lock().await.send(Message::Close(to_endpoint)).await;
            let _ = self.to_caller.lock().await.send(Message::Close(to_caller)).await;
            // Closed with bytes unread, a connection is reset and what was said last is lost.
            while from_caller.next().await.is_some_and(|message| message.is_ok()) {}
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    fn settle(&self, outcome: Outcome) {
        let (usage, is_estimate) = self.tally.borrow().usage();
        let source = is_estimate.then_some(UsageSource::Estimated);
        self.call.borrow_mut().settle(outcome, Measured { usage, source, ..Measured::default() });
    }

    /// Whether its record stands as safely as the operator wants it to. It is waited for as long as its deadlines allow.
    async fn is_on_disk(&self) -> bool {
        let mark = self.call.borrow_mut().mark.take();
        let Some(mark) = mark else {
            return true;
        };
        let on_disk = poll_fn(|cx| mark.poll(cx));
        if self.live.cut().is_some() {
            return matches!(tokio::time::timeout(FAREWELL, on_disk).await, Ok(Ok(())));
        }
        matches!(self.live.race(on_disk).await, Ok(Ok(())))
    }
}

/// Limits have the protocol's own code, and when trying again makes sense.
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
