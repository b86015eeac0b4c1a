//! Passes an endpoint's answer to the caller: bytes pass as they are, an observer reads their usage, and the call is settled before the
//! answer's end is passed on.

use crate::base::boxing::boxed;
use crate::base::problem::Problem;
use crate::call::guard::{Call, Measured};
use crate::observe::metrics::bump;
use crate::pipeline::attempt::UpstreamResponse;
use crate::reactor::in_flight::Phase;
use crate::reactor::state::Reactor;
use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tenon_balance::AttemptOutcome;
use tenon_dialects::translate::{Direction, MalformedAnswer, Translator};
use tenon_dialects::{MediaObserver, Observer, RequestFormat, StreamProgress, find_usage, usage_of_answer};
use tenon_upstream::pool::Sender;
use tenon_usage::Outcome;

/// The endpoint's body broke off. Hyper then closes the caller's connection, so that the answer does not look complete.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenOff;

/// A whole answer up to this size is read for its usage. The usage of a longer one is unknown.
pub const OBSERVED_BYTES_MAX: usize = 64 << 20;
/// Engines put usage last: the end of a long answer is searched first.
const TAIL_BYTES: usize = 16 << 10;

enum AnswerKind {
    /// One JSON text: its pieces are kept (by reference) until the end.
    Whole {
        pieces: Vec<Bytes>,
        bytes: usize,
        format: RequestFormat,
    },
    Events(Box<Observer>),
    /// Events of another dialect.
    Translated(Box<Translator>),
    /// Speech, images and the like: watched, never kept.
    Media {
        observer: Box<MediaObserver>,
        events: bool,
        images: bool,
    },
    /// An endpoint's refusal, passed on as it is.
    Refused,
}

pub struct Relay {
    reactor: Rc<Reactor>,
    call: Box<Call>,
    body: Incoming,
    /// Goes back to the pool when the answer has been read to its end. Dropped before that, the connection closes, which cancels the call.
    sender: Option<Sender>,
    pool: usize,
    length: Option<u64>,
    kind: AnswerKind,
    queue: VecDeque<Bytes>,
    over: bool,
    /// The endpoint was asked for more and has none: it is slow itself, not held up by a caller who does not read.
    is_waiting: bool,
    /// Its caller left, and it is read to its end for its usage.
    abandoned: bool,
}

impl Relay {
    pub fn events(reactor: &Rc<Reactor>, call: Box<Call>, upstream: UpstreamResponse, format: RequestFormat, take_usage_out: bool) -> Box<Self> {
        Self::new(reactor, call, upstream, AnswerKind::Events(Box::new(Observer::of(format, take_usage_out))))
    }

    pub fn translated(reactor: &Rc<Reactor>, call: Box<Call>, upstream: UpstreamResponse, direction: Direction, include_usage: bool) -> Box<Self> {
        let translator = Translator::new(direction, include_usage, call.request.started_unix_seconds());
        Self::new(reactor, call, upstream, AnswerKind::Translated(Box::new(translator)))
    }

    pub fn media(reactor: &Rc<Reactor>, call: Box<Call>, upstream: UpstreamResponse, format: RequestFormat, events: bool) -> Box<Self> {
        let kind = AnswerKind::Media { observer: Box::new(MediaObserver::new(events)), events, images: format.has_images() };
        Self::new(reactor, call, upstream, kind)
    }

    pub fn whole(reactor: &Rc<Reactor>, call: Box<Call>, upstream: UpstreamResponse, format: RequestFormat) -> Box<Self> {
        let refused = !upstream.response.status().is_success();
        let kind = if refused { AnswerKind::Refused } else { AnswerKind::Whole { pieces: Vec::new(), bytes: 0, format } };
        let mut relay = Self::new(reactor, call, upstream, kind);
        if refused {
            // Without a body there is no last frame: hyper never asks.
            relay.end_with_last_frame();
        }
        relay
    }

    fn new(reactor: &Rc<Reactor>, call: Box<Call>, upstream: UpstreamResponse, kind: AnswerKind) -> Box<Self> {
        let UpstreamResponse { response, first, length, sender, pool, .. } = upstream;
        let body = response.into_body();
        let mut relay = boxed(|| Self {
            reactor: reactor.clone(),
            call,
            body,
            length,
            sender: Some(sender),
            pool,
            kind,
            queue: VecDeque::new(),
            over: false,
            is_waiting: false,
            abandoned: false,
        });
        if let Some(first) = first {
            relay.pass(first);
        }
        relay
    }

    /// The answer's length, where nothing can be added or taken out.
    pub fn length(&self) -> Option<u64> {
        match self.kind {
            AnswerKind::Events(_) | AnswerKind::Translated(_) | AnswerKind::Media { events: true, .. } => None,
            AnswerKind::Whole { .. } | AnswerKind::Media { .. } | AnswerKind::Refused => self.length,
        }
    }

    pub fn is_over(&self) -> bool {
        self.over && self.queue.is_empty() && self.call.mark.is_none()
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        loop {
            if self.call.mark.is_some() {
                ready!(self.poll_on_disk(cx))?;
            }
            if let Some(bytes) = self.queue.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            if let Some(abort) = self.call.in_flight.aborted() {
                let outcome = if abort.timeout { Outcome::Timeout } else { Outcome::Cut };
                self.break_off(&abort.problem, outcome)?;
                continue;
            }
            self.call.in_flight.park(cx.waker());
            let frame = Pin::new(&mut self.body).poll_frame(cx);
            self.is_waiting = frame.is_pending();
            match ready!(frame) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pass(data);
                    }
                }
                Some(Err(_)) => self.break_off(&Problem::CUT, Outcome::Cut)?,
                None => self.end()?,
            }
        }
    }

    /// The rest of the answer waits until its record is on the disk. Where the disk fails, the answer does not look complete.
    fn poll_on_disk(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        let on_disk = self.call.mark.as_ref().map_or(Poll::Ready(Ok(())), |mark| mark.poll(cx));
        self.call.in_flight.park(cx.waker());
        let failed = match on_disk {
            Poll::Pending if self.call.in_flight.aborted().is_none() => return Poll::Pending,
            Poll::Ready(Ok(())) => false,
            _ => true,
        };
        self.call.mark = None;
        if failed {
            self.over = true;
            self.sender = None;
            self.queue.clear();
            self.call.failed(Problem::UNMETERED.code, None);
            if !self.is_stream() {
                return Poll::Ready(Err(BrokenOff));
            }
            self.queue.push_back(Problem::UNMETERED.frame(self.call.request.id, self.call.request.dialect));
        }
        Poll::Ready(Ok(()))
    }

    fn pass(&mut self, data: Bytes) {
        self.call.first_token();
        self.call.in_flight.enter(Phase::Stream, self.reactor.clock.now());
        match &mut self.kind {
            AnswerKind::Events(observer) => {
                observer.observe(data, |bytes| self.queue.push_back(bytes));
                // Callers stop reading at `[DONE]`, so the record must be stored before it is passed on.
                if observer.progress().done {
                    self.settle_stream(Outcome::Completed);
                }
            }
            AnswerKind::Translated(translator) => match translator.translate(&data) {
                Ok(bytes) => {
                    let done = translator.progress().done;
                    self.push(bytes);
                    if done {
                        self.settle_stream(Outcome::Completed);
                    }
                }
                Err(malformed) => self.fail_translation(malformed),
            },
            AnswerKind::Media { observer, events, .. } => {
                observer.observe(&data);
                let (events, done) = (*events, observer.is_done());
                self.queue.push_back(data);
                match (events, done) {
                    (true, true) => self.settle_stream(Outcome::Completed),
                    (true, false) => {}
                    (false, _) => self.end_with_last_frame(),
                }
            }
            AnswerKind::Whole { pieces, bytes, .. } => {
                *bytes += data.len();
                if *bytes <= OBSERVED_BYTES_MAX {
                    pieces.push(data.clone());
                }
                self.queue.push_back(data);
                self.end_with_last_frame();
            }
            AnswerKind::Refused => {
                self.queue.push_back(data);
                self.end_with_last_frame();
            }
        }
    }

    /// With a content-length the last frame is known to be the last: hyper will not ask again.
    fn end_with_last_frame(&mut self) {
        if self.body.is_end_stream() {
            self.settle_whole();
            self.finished();
        }
    }

    fn end(&mut self) -> Result<(), BrokenOff> {
        match &mut self.kind {
            AnswerKind::Events(observer) => self.queue.extend(observer.finish()),
            AnswerKind::Translated(translator) => match translator.finish() {
                Ok(bytes) => self.push(bytes),
                Err(malformed) => {
                    self.fail_translation(malformed);
                    return Ok(());
                }
            },
            AnswerKind::Media { events: true, .. } => {}
            AnswerKind::Media { .. } | AnswerKind::Whole { .. } | AnswerKind::Refused => {
                self.settle_whole();
                self.finished();
                return Ok(());
            }
        }
        if !self.stream_is_whole() {
            // An engine that died may well have closed its connection in good order.
            return self.break_off(&Problem::CUT, Outcome::Cut);
        }
        self.settle_stream(Outcome::Completed);
        self.finished();
        Ok(())
    }

    /// Empty where a frame has no counterpart.
    fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue.push_back(bytes);
        }
    }

    /// The endpoint's stream is not of its dialect, or cannot be translated into the caller's.
    fn fail_translation(&mut self, malformed: MalformedAnswer) {
        // Of a stream this cannot fail: it ends with a frame.
        let _ = self.break_off(&Problem::PROTOCOL, Outcome::UpstreamError);
        self.call.failed(Problem::PROTOCOL.code, Some(malformed.to_string()));
    }

    /// Hyper drops the answer: it is over, or its caller left. Where the endpoint goes on and bills all of it, it is read to its end for the true
    /// usage, within bounds; everywhere else dropping it cancels the call.
    pub fn abandon(mut self: Box<Self>) {
        let reactor = self.reactor.clone();
        let bills = self.call.chosen().is_some_and(|chosen| chosen.endpoint().bills_aborted);
        if self.over || !bills || self.call.is_settled() || reactor.drains.get() >= reactor.shared.limits.abort_drains_max_per_thread {
            return;
        }
        self.abandoned = true;
        self.queue.clear();
        reactor.drains.set(reactor.drains.get() + 1);
        bump(&reactor.observers.metrics().drained, 1);
        tokio::task::spawn_local(async move {
            let to_its_end = std::future::poll_fn(|cx| self.poll_unread(cx));
            let _in_time = tokio::time::timeout(reactor.shared.limits.abort_drain, to_its_end).await;
            drop(self);
            reactor.drains.set(reactor.drains.get() - 1);
        });
    }

    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok(_unread)) = ready!(self.poll(cx)) {}
        Poll::Ready(())
    }

    /// The outcome as it is recorded, whatever follows after the caller left.
    fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.abandoned { Outcome::ClientGone } else { outcome }
    }

    /// Ends what cannot go on: a stream with an error frame, a whole answer by closing the connection.
    fn break_off(&mut self, problem: &Problem, outcome: Outcome) -> Result<(), BrokenOff> {
        self.over = true;
        self.sender = None;
        if problem.code == Problem::CUT.code || (self.is_waiting && problem.code == Problem::IDLE_TIMEOUT.code) {
            self.call.record_outcome(AttemptOutcome::BrokeOff);
        }
        self.call.failed(problem.code, None);
        if !self.is_stream() {
            self.call.settle(self.outcome(outcome), Measured::default());
            return Err(BrokenOff);
        }
        let done = self.stream_is_done();
        self.settle_stream(outcome);
        if !done {
            self.queue.push_back(problem.frame(self.call.request.id, self.call.request.dialect));
        }
        Ok(())
    }

    /// A stream, which ends with an error frame where it cannot go on.
    fn is_stream(&self) -> bool {
        matches!(self.kind, AnswerKind::Events(_) | AnswerKind::Translated(_) | AnswerKind::Media { events: true, .. })
    }

    fn progress(&self) -> Option<&StreamProgress> {
        match &self.kind {
            AnswerKind::Events(observer) => Some(observer.progress()),
            AnswerKind::Translated(translator) => Some(translator.progress()),
            _ => None,
        }
    }

    /// Closed in good order, and nothing is missing: some engines forget the dialect's own end.
    fn stream_is_whole(&self) -> bool {
        self.progress().map_or_else(|| self.stream_is_done(), StreamProgress::is_whole)
    }

    fn stream_is_done(&self) -> bool {
        match &self.kind {
            AnswerKind::Events(observer) => observer.progress().done,
            AnswerKind::Translated(translator) => translator.progress().done,
            AnswerKind::Media { observer, .. } => observer.is_done(),
            AnswerKind::Whole { .. } | AnswerKind::Refused => false,
        }
    }

    fn settle_stream(&mut self, outcome: Outcome) {
        if let Some(progress) = self.progress().copied() {
            let outcome = if progress.error && outcome == Outcome::Completed { Outcome::UpstreamError } else { outcome };
            self.call.settle(self.outcome(outcome), progress.measured().into());
        } else if let AnswerKind::Media { observer, images, .. } = &self.kind {
            let outcome = if observer.has_error() && outcome == Outcome::Completed { Outcome::UpstreamError } else { outcome };
            let measured = Measured { usage: observer.usage(*images), ..Measured::default() };
            self.call.settle(self.outcome(outcome), measured);
        }
    }

    fn settle_whole(&mut self) {
        if matches!(self.kind, AnswerKind::Media { .. }) {
            return self.settle_stream(Outcome::Completed);
        }
        let AnswerKind::Whole { pieces, bytes, format } = &self.kind else {
            return self.call.settle(Outcome::UpstreamError, Measured::default());
        };
        let usage = match &pieces[..] {
            [one] => usage_of_answer(*format, one),
            _ if *bytes > OBSERVED_BYTES_MAX => None,
            many if format.ends_with_usage() => find_usage(&join(many, TAIL_BYTES)).or_else(|| find_usage(&join(many, *bytes))),
            many => usage_of_answer(*format, &join(many, *bytes)),
        };
        self.call.settle(self.outcome(Outcome::Completed), Measured { usage, ..Measured::default() });
    }

    fn finished(&mut self) {
        self.over = true;
        if let Some(sender) = self.sender.take() {
            self.reactor.upstreams.pools.give_back(self.pool, sender);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.call.in_flight.enter(Phase::Stream, self.reactor.clock.now());
        // Settled already, unless the caller left in the middle.
        if self.is_stream() {
            self.settle_stream(Outcome::ClientGone);
        }
    }
}

/// The last pieces that hold at least `least` bytes, as one.
fn join(pieces: &[Bytes], least: usize) -> BytesMut {
    let mut held = 0;
    let from = pieces.iter().rposition(|piece| {
        held += piece.len();
        held >= least
    });
    let mut joined = BytesMut::with_capacity(held);
    pieces[from.unwrap_or(0)..].iter().for_each(|piece| joined.extend_from_slice(piece));
    joined
}
