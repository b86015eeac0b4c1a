//! The answer on its way down: bytes pass, the observer looks, and the call is settled before its end is given away.

use crate::answer::{BrokenOff, join};
use crate::call::{Call, Measured};
use crate::in_place::boxed;
use crate::live::Phase;
use crate::metrics::bump;
use crate::pool::Sender;
use crate::problem::Problem;
use crate::upstream::Answering;
use crate::worker::Worker;
use bytes::Bytes;
use http_body::Body;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tenon_balance::Verdict;
use tenon_dialects::translate::{Direction, Malformed, Translator};
use tenon_dialects::{Form, Observer, Seen, Watch, find_usage, usage_of_answer};
use tenon_usage::Outcome;

/// A whole answer up to this size is looked at for usage; what is longer is passed on and counts as unknown.
pub const LOOKED_AT_MAX: usize = 64 << 20;
/// Engines put usage last: the end of a long answer is looked at first.
const TAIL: usize = 16 << 10;

enum Kind {
    /// One JSON text: its pieces are kept (by reference) until the end.
    Whole {
        pieces: Vec<Bytes>,
        bytes: usize,
        form: Form,
    },
    Events(Box<Observer>),
    /// Events of another dialect.
    Translated(Box<Translator>),
    /// Speech, images and the like: watched, never kept.
    Media {
        watch: Box<Watch>,
        events: bool,
        images: bool,
    },
    /// An upstream's refusal, passed on as it is.
    Refused,
}

pub struct Relay {
    worker: Rc<Worker>,
    call: Box<Call>,
    body: Incoming,
    /// Goes back to the pool when the answer has been read to its end; dropped before that, the connection is closed: that is the cancel.
    sender: Option<Sender>,
    pool: usize,
    length: Option<u64>,
    kind: Kind,
    queue: VecDeque<Bytes>,
    over: bool,
    /// The upstream was asked for more and has none: its silence is its own, not that of a caller who does not read.
    waits: bool,
    /// Its caller left, and it is read on for its numbers.
    abandoned: bool,
}

impl Relay {
    pub fn events(worker: &Rc<Worker>, call: Box<Call>, answering: Answering, form: Form, take_usage_out: bool) -> Box<Self> {
        Self::new(worker, call, answering, Kind::Events(Box::new(Observer::of(form, take_usage_out))))
    }

    pub fn translated(worker: &Rc<Worker>, call: Box<Call>, answering: Answering, direction: Direction, include_usage: bool) -> Box<Self> {
        let translator = Translator::new(direction, include_usage, call.subject.started_unix_seconds());
        Self::new(worker, call, answering, Kind::Translated(Box::new(translator)))
    }

    pub fn media(worker: &Rc<Worker>, call: Box<Call>, answering: Answering, form: Form, events: bool) -> Box<Self> {
        let kind = Kind::Media { watch: Box::new(Watch::new(events)), events, images: form.makes_images() };
        Self::new(worker, call, answering, kind)
    }

    pub fn whole(worker: &Rc<Worker>, call: Box<Call>, answering: Answering, form: Form) -> Box<Self> {
        let refused = !answering.response.status().is_success();
        let kind = if refused { Kind::Refused } else { Kind::Whole { pieces: Vec::new(), bytes: 0, form } };
        let mut relay = Self::new(worker, call, answering, kind);
        if refused {
            // Without a body there is no last frame: hyper never asks.
            relay.end_with_last_frame();
        }
        relay
    }

    fn new(worker: &Rc<Worker>, call: Box<Call>, answering: Answering, kind: Kind) -> Box<Self> {
        let Answering { response, first, length, sender, pool, .. } = answering;
        let body = response.into_body();
        let mut relay = boxed(|| Self {
            worker: worker.clone(),
            call,
            body,
            length,
            sender: Some(sender),
            pool,
            kind,
            queue: VecDeque::new(),
            over: false,
            waits: false,
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
            Kind::Events(_) | Kind::Translated(_) | Kind::Media { events: true, .. } => None,
            Kind::Whole { .. } | Kind::Media { .. } | Kind::Refused => self.length,
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
            if let Some(cut) = self.call.live.cut() {
                let outcome = if cut.timeout { Outcome::Timeout } else { Outcome::Cut };
                self.break_off(&cut.problem, outcome)?;
                continue;
            }
            self.call.live.park(cx.waker());
            let frame = Pin::new(&mut self.body).poll_frame(cx);
            self.waits = frame.is_pending();
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

    /// What is left of the answer waits until its record is on the disk. Where the disk fails, the answer does not look complete.
    fn poll_on_disk(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        let on_disk = self.call.mark.as_ref().map_or(Poll::Ready(Ok(())), |mark| mark.poll(cx));
        self.call.live.park(cx.waker());
        let failed = match on_disk {
            Poll::Pending if self.call.live.cut().is_none() => return Poll::Pending,
            Poll::Ready(Ok(())) => false,
            _ => true,
        };
        self.call.mark = None;
        if failed {
            self.over = true;
            self.sender = None;
            self.queue.clear();
            self.call.trouble(Problem::UNMETERED.code, None);
            if !self.is_stream() {
                return Poll::Ready(Err(BrokenOff));
            }
            self.queue.push_back(Problem::UNMETERED.frame(self.call.subject.id, self.call.subject.door.dialect));
        }
        Poll::Ready(Ok(()))
    }

    fn pass(&mut self, data: Bytes) {
        self.call.first_token();
        self.call.live.enter(Phase::Stream, self.worker.clock());
        match &mut self.kind {
            Kind::Events(observer) => {
                observer.observe(data, |bytes| self.queue.push_back(bytes));
                // Callers stop reading at `[DONE]`, so the record must stand before it leaves.
                if observer.seen().done {
                    self.settle_stream(Outcome::Completed);
                }
            }
            Kind::Translated(translator) => match translator.translate(&data) {
                Ok(bytes) => {
                    let done = translator.seen().done;
                    self.give(bytes);
                    if done {
                        self.settle_stream(Outcome::Completed);
                    }
                }
                Err(malformed) => self.cannot_say(malformed),
            },
            Kind::Media { watch, events, .. } => {
                watch.observe(&data);
                let (events, done) = (*events, watch.is_done());
                self.queue.push_back(data);
                match (events, done) {
                    (true, true) => self.settle_stream(Outcome::Completed),
                    (true, false) => {}
                    (false, _) => self.end_with_last_frame(),
                }
            }
            Kind::Whole { pieces, bytes, .. } => {
                *bytes += data.len();
                if *bytes <= LOOKED_AT_MAX {
                    pieces.push(data.clone());
                }
                self.queue.push_back(data);
                self.end_with_last_frame();
            }
            Kind::Refused => {
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
            Kind::Events(observer) => self.queue.extend(observer.finish()),
            Kind::Translated(translator) => match translator.finish() {
                Ok(bytes) => self.give(bytes),
                Err(malformed) => {
                    self.cannot_say(malformed);
                    return Ok(());
                }
            },
            Kind::Media { events: true, .. } => {}
            Kind::Media { .. } | Kind::Whole { .. } | Kind::Refused => {
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

    /// Nothing, where a frame has no counterpart.
    fn give(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue.push_back(bytes);
        }
    }

    /// The endpoint's stream is not of its dialect, or says what the caller's has no words for.
    fn cannot_say(&mut self, malformed: Malformed) {
        // Of a stream this cannot fail: it ends with a frame.
        let _ = self.break_off(&Problem::PROTOCOL, Outcome::UpstreamError);
        self.call.trouble(Problem::PROTOCOL.code, Some(malformed.to_string()));
    }

    /// Hyper lets go of the answer: it is over, or its caller left. Where the endpoint goes on and bills it all, it is read to its end for the
    /// true numbers, within bounds; everywhere else letting go is the cancel.
    pub fn leave(mut self: Box<Self>) {
        let worker = self.worker.clone();
        let bills = self.call.chosen().is_some_and(|chosen| chosen.endpoint().bills_aborted);
        if self.over || !bills || self.call.is_settled() || worker.drains.get() >= worker.limits.abort_drains_max_per_thread {
            return;
        }
        self.abandoned = true;
        self.queue.clear();
        worker.drains.set(worker.drains.get() + 1);
        bump(&worker.metrics().drained, 1);
        tokio::task::spawn_local(async move {
            let to_its_end = std::future::poll_fn(|cx| self.poll_unread(cx));
            let _in_time = tokio::time::timeout(worker.limits.abort_drain, to_its_end).await;
            drop(self);
            worker.drains.set(worker.drains.get() - 1);
        });
    }

    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(Ok(_unread)) = ready!(self.poll(cx)) {}
        Poll::Ready(())
    }

    /// How it is recorded: a caller who left stays a caller who left.
    fn outcome(&self, outcome: Outcome) -> Outcome {
        if self.abandoned { Outcome::ClientGone } else { outcome }
    }

    /// Ends what cannot go on: a stream with an error frame, a whole answer by closing the connection.
    fn break_off(&mut self, problem: &Problem, outcome: Outcome) -> Result<(), BrokenOff> {
        self.over = true;
        self.sender = None;
        if problem.code == Problem::CUT.code || (self.waits && problem.code == Problem::IDLE_TIMEOUT.code) {
            self.call.judge(Verdict::BrokeOff);
        }
        self.call.trouble(problem.code, None);
        if !self.is_stream() {
            self.call.settle(self.outcome(outcome), Measured::default());
            return Err(BrokenOff);
        }
        let done = self.stream_is_done();
        self.settle_stream(outcome);
        if !done {
            self.queue.push_back(problem.frame(self.call.subject.id, self.call.subject.door.dialect));
        }
        Ok(())
    }

    /// It ends with an error frame where it cannot go on.
    fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Events(_) | Kind::Translated(_) | Kind::Media { events: true, .. })
    }

    fn seen(&self) -> Option<&Seen> {
        match &self.kind {
            Kind::Events(observer) => Some(observer.seen()),
            Kind::Translated(translator) => Some(translator.seen()),
            _ => None,
        }
    }

    /// Closed in good order, and nothing is missing: some engines forget the dialect's own end.
    fn stream_is_whole(&self) -> bool {
        self.seen().map_or_else(|| self.stream_is_done(), Seen::is_whole)
    }

    fn stream_is_done(&self) -> bool {
        match &self.kind {
            Kind::Events(observer) => observer.seen().done,
            Kind::Translated(translator) => translator.seen().done,
            Kind::Media { watch, .. } => watch.is_done(),
            Kind::Whole { .. } | Kind::Refused => false,
        }
    }

    fn settle_stream(&mut self, outcome: Outcome) {
        if let Some(seen) = self.seen().copied() {
            let outcome = if seen.error && outcome == Outcome::Completed { Outcome::UpstreamError } else { outcome };
            self.call.settle(self.outcome(outcome), seen.measured().into());
        } else if let Kind::Media { watch, images, .. } = &self.kind {
            let outcome = if watch.has_error() && outcome == Outcome::Completed { Outcome::UpstreamError } else { outcome };
            let measured = Measured { usage: watch.usage(*images), ..Measured::default() };
            self.call.settle(self.outcome(outcome), measured);
        }
    }

    fn settle_whole(&mut self) {
        if matches!(self.kind, Kind::Media { .. }) {
            return self.settle_stream(Outcome::Completed);
        }
        let Kind::Whole { pieces, bytes, form } = &self.kind else {
            return self.call.settle(Outcome::UpstreamError, Measured::default());
        };
        let usage = match &pieces[..] {
            [one] => usage_of_answer(*form, one),
            _ if *bytes > LOOKED_AT_MAX => None,
            many if form.tells_usage_last() => find_usage(&join(many, TAIL)).or_else(|| find_usage(&join(many, *bytes))),
            many => usage_of_answer(*form, &join(many, *bytes)),
        };
        self.call.settle(self.outcome(Outcome::Completed), Measured { usage, ..Measured::default() });
    }

    fn finished(&mut self) {
        self.over = true;
        if let Some(sender) = self.sender.take() {
            self.worker.pools.give_back(self.pool, sender);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.call.live.enter(Phase::Stream, self.worker.clock());
        // Settled already, unless the caller left in the middle.
        if self.is_stream() {
            self.settle_stream(Outcome::ClientGone);
        }
    }
}
