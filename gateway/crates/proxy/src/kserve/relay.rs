//! An endpoint's answer on its way down: frames pass untouched, counts are seen, and the call is settled before its trailers are given away.

use super::body::Objection;
use super::framing::Onlooker;
use super::message::{field, is_error, usage};
use super::status::{PERMISSION_DENIED, STATUS, UNAUTHENTICATED, trailers};
use super::upstream::Answering;
use crate::call::{Call, Measured};
use crate::live::Phase;
use crate::problem::Problem;
use crate::worker::Worker;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tenon_dialects::Usage;
use tenon_usage::Outcome;

/// Longer messages are tensors, not counts: they pass unseen.
const LOOKED_AT_MAX: usize = 1 << 20;
/// Requests of one stream whose input is told apart.
const REQUESTS_MAX: usize = 256;

/// Counts of the requests of one call: output adds up, input is told once or again with every answer of the same request.
#[derive(Default)]
struct Counted {
    inputs: Vec<(Box<[u8]>, u64)>,
    output: u64,
    any: bool,
    messages: u64,
    error: bool,
}

impl Counted {
    fn look(&mut self, message: &[u8], streamed: bool) {
        self.messages += 1;
        self.error |= streamed && is_error(message);
        let Some(told) = usage(message, streamed) else {
            return;
        };
        self.any = true;
        self.output = self.output.saturating_add(told.output);
        let response = if streamed { field(message, 2).unwrap_or_default() } else { message };
        let id = field(response, 3).unwrap_or_default();
        if let Some((_, input)) = self.inputs.iter_mut().find(|(known, _)| **known == *id) {
            *input = told.input.max(*input);
        } else if self.inputs.len() < REQUESTS_MAX {
            self.inputs.push((id.into(), told.input));
        }
    }

    fn usage(&self) -> Option<Usage> {
        let input = self.inputs.iter().fold(0, |sum: u64, (_, input)| sum.saturating_add(*input));
        self.any.then(|| Usage { input, output: self.output, ..Usage::default() })
    }
}

pub struct Relay {
    worker: Rc<Worker>,
    call: Box<Call>,
    body: Option<Incoming>,
    objection: Option<Rc<Objection>>,
    onlooker: Onlooker,
    counted: Counted,
    /// The end, while it waits for the disk.
    ending: Option<HeaderMap>,
    /// Counts the call at its connection until it is over.
    _running: Running,
}

/// One of the calls that a connection carries.
pub struct Running(Rc<Cell<usize>>);

impl Running {
    pub fn on(connection: &Rc<Cell<usize>>) -> Self {
        connection.set(connection.get() + 1);
        Self(connection.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Relay {
    pub fn new(worker: &Rc<Worker>, call: Box<Call>, answering: Answering, objection: Option<Rc<Objection>>) -> Self {
        call.live.enter(Phase::FirstToken, worker.clock());
        Self {
            worker: worker.clone(),
            call,
            body: Some(answering.response.into_body()),
            objection,
            onlooker: Onlooker::default(),
            counted: Counted::default(),
            ending: None,
            _running: answering.running,
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if let Some(body) = &mut self.body {
            let objection = self.objection.as_ref().and_then(|objection| objection.poll(cx));
            if let Some(problem) = objection {
                self.break_off(&problem, Outcome::Cut);
            } else if let Some(cut) = self.call.live.cut() {
                self.break_off(&cut.problem, if cut.timeout { Outcome::Timeout } else { Outcome::Cut });
            } else {
                self.call.live.park(cx.waker());
                match ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => return Poll::Ready(Some(Frame::data(self.pass(data)))),
                    Some(Ok(Err(frame))) => self.end(frame.into_trailers().unwrap_or_default()),
                    // The body's own end is no end: without a status nobody knows how it went.
                    Some(Err(_)) | None => self.break_off(&Problem::CUT, Outcome::Cut),
                }
            }
        }
        if self.call.mark.is_some() {
            ready!(self.poll_on_disk(cx));
        }
        Poll::Ready(self.ending.take().map(Frame::trailers))
    }

    fn pass(&mut self, data: Bytes) -> Bytes {
        self.call.first_token();
        self.call.live.enter(Phase::Stream, self.worker.clock());
        let (counted, streamed) = (&mut self.counted, self.call.subject.streamed);
        self.onlooker.look(&data, LOOKED_AT_MAX, |message| counted.look(message, streamed));
        data
    }

    /// The endpoint's own end. What it says of our credential is told in our words.
    fn end(&mut self, mut theirs: HeaderMap) {
        let status = status_of(&theirs);
        if matches!(status, Some(UNAUTHENTICATED | PERMISSION_DENIED)) {
            return self.break_off(&Problem::CREDENTIAL, Outcome::UpstreamError);
        }
        theirs.remove(http::header::AUTHORIZATION);
        let well = status == Some(0) && !self.counted.error;
        self.settle(if well { Outcome::Completed } else { Outcome::UpstreamError });
        self.body = None;
        self.ending = Some(theirs);
    }

    fn break_off(&mut self, problem: &Problem, outcome: Outcome) {
        self.call.trouble(problem.code, None);
        self.settle(outcome);
        // Dropped unread, its stream is reset: that is the cancel.
        self.body = None;
        self.close();
        self.ending = Some(trailers(problem, self.call.subject.id));
    }

    fn close(&self) {
        if let Some(objection) = &self.objection {
            objection.close();
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        let output_frames = if outcome == Outcome::Completed || !self.call.subject.streamed { 0 } else { self.counted.messages };
        self.call.settle(outcome, Measured { usage: self.counted.usage(), output_frames, ..Measured::default() });
    }

    fn poll_on_disk(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let on_disk = self.call.mark.as_ref().map_or(Poll::Ready(Ok(())), |mark| mark.poll(cx));
        self.call.live.park(cx.waker());
        match on_disk {
            Poll::Pending if self.call.live.cut().is_none() => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
            _ => self.ending = Some(trailers(&Problem::UNMETERED, self.call.subject.id)),
        }
        self.call.mark = None;
        Poll::Ready(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.body.is_some() {
            self.settle(Outcome::ClientGone);
        }
        self.close();
    }
}

pub fn status_of(headers: &HeaderMap) -> Option<u8> {
    headers.get(STATUS)?.to_str().ok()?.parse().ok()
}
