//! Passes an endpoint's answer to the caller: frames pass untouched, counts are observed, and the call is settled before its trailers are sent.

use crate::base::problem::Problem;
use crate::call::guard::{Call, Measured};
use crate::protocols::kserve::attempt::GrpcUpstream;
use crate::protocols::kserve::framing::MessageObserver;
use crate::protocols::kserve::message::{field, is_error, usage};
use crate::protocols::kserve::request_body::StreamProblem;
use crate::protocols::kserve::status::{PERMISSION_DENIED, STATUS, UNAUTHENTICATED, trailers};
use crate::reactor::in_flight::Phase;
use crate::reactor::state::Reactor;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tenon_dialects::Usage;
use tenon_upstream::grpc_pool::CallSlot;
use tenon_usage::Outcome;

/// Longer messages are tensors, not counts: they are not observed.
const OBSERVED_BYTES_MAX: usize = 1 << 20;
/// Requests of one stream whose input is counted separately.
const REQUESTS_MAX: usize = 256;

/// Counts of one call's requests. Output adds up; input is reported once, or again with every answer of the same request.
#[derive(Default)]
struct Counted {
    inputs: Vec<(Box<[u8]>, u64)>,
    output: u64,
    any: bool,
    messages: u64,
    error: bool,
}

impl Counted {
    fn observe(&mut self, message: &[u8], streamed: bool) {
        self.messages += 1;
        self.error |= streamed && is_error(message);
        let Some(reported) = usage(message, streamed) else {
            return;
        };
        self.any = true;
        self.output = self.output.saturating_add(reported.output);
        let response = if streamed { field(message, 2).unwrap_or_default() } else { message };
        let id = field(response, 3).unwrap_or_default();
        if let Some((_, input)) = self.inputs.iter_mut().find(|(known, _)| **known == *id) {
            *input = reported.input.max(*input);
        } else if self.inputs.len() < REQUESTS_MAX {
            self.inputs.push((id.into(), reported.input));
        }
    }

    fn usage(&self) -> Option<Usage> {
        let input = self.inputs.iter().fold(0, |sum: u64, (_, input)| sum.saturating_add(*input));
        self.any.then(|| Usage { input, output: self.output, ..Usage::default() })
    }
}

pub struct GrpcRelay {
    reactor: Rc<Reactor>,
    call: Box<Call>,
    body: Option<Incoming>,
    stream_problem: Option<Rc<StreamProblem>>,
    observer: MessageObserver,
    counted: Counted,
    /// The end, while it waits for the disk.
    ending: Option<HeaderMap>,
    /// Counts the call at its connection until it is over.
    _slot: CallSlot,
}

impl GrpcRelay {
    pub fn new(reactor: &Rc<Reactor>, call: Box<Call>, upstream: GrpcUpstream, stream_problem: Option<Rc<StreamProblem>>) -> Self {
        call.in_flight.enter(Phase::FirstToken, reactor.clock.now());
        Self {
            reactor: reactor.clone(),
            call,
            body: Some(upstream.response.into_body()),
            stream_problem,
            observer: MessageObserver::default(),
            counted: Counted::default(),
            ending: None,
            _slot: upstream.slot,
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if let Some(body) = &mut self.body {
            let stream_problem = self.stream_problem.as_ref().and_then(|stream_problem| stream_problem.poll(cx));
            if let Some(problem) = stream_problem {
                self.break_off(&problem, Outcome::Cut);
            } else if let Some(abort) = self.call.in_flight.aborted() {
                self.break_off(&abort.problem, if abort.timeout { Outcome::Timeout } else { Outcome::Cut });
            } else {
                self.call.in_flight.park(cx.waker());
                match ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => return Poll::Ready(Some(Frame::data(self.pass(data)))),
                    Some(Ok(Err(frame))) => self.end(frame.into_trailers().unwrap_or_default()),
                    // The end of the body alone is no end: without a status the outcome is unknown.
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
        self.call.in_flight.enter(Phase::Stream, self.reactor.clock.now());
        let (counted, streamed) = (&mut self.counted, self.call.request.streamed);
        self.observer.observe(&data, OBSERVED_BYTES_MAX, |message| counted.observe(message, streamed));
        data
    }

    /// The endpoint's own end. Its refusal of the gateway's credential is replaced.
    fn end(&mut self, mut theirs: HeaderMap) {
        let status = status_of(&theirs);
        if matches!(status, Some(UNAUTHENTICATED | PERMISSION_DENIED)) {
            return self.break_off(&Problem::CREDENTIAL, Outcome::UpstreamError);
        }
        theirs.remove(http::header::AUTHORIZATION);
        let is_ok = status == Some(0) && !self.counted.error;
        self.settle(if is_ok { Outcome::Completed } else { Outcome::UpstreamError });
        self.body = None;
        self.ending = Some(theirs);
    }

    fn break_off(&mut self, problem: &Problem, outcome: Outcome) {
        self.call.failed(problem.code, None);
        self.settle(outcome);
        // Dropped unread, its stream is reset, which cancels the call.
        self.body = None;
        self.close();
        self.ending = Some(trailers(problem, self.call.request.id));
    }

    fn close(&self) {
        if let Some(stream_problem) = &self.stream_problem {
            stream_problem.close();
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        let output_frames = if outcome == Outcome::Completed || !self.call.request.streamed { 0 } else { self.counted.messages };
        self.call.settle(outcome, Measured { usage: self.counted.usage(), output_frames, ..Measured::default() });
    }

    fn poll_on_disk(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let on_disk = self.call.mark.as_ref().map_or(Poll::Ready(Ok(())), |mark| mark.poll(cx));
        self.call.in_flight.park(cx.waker());
        match on_disk {
            Poll::Pending if self.call.in_flight.aborted().is_none() => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
            _ => self.ending = Some(trailers(&Problem::UNMETERED, self.call.request.id)),
        }
        self.call.mark = None;
        Poll::Ready(())
    }
}

impl Drop for GrpcRelay {
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
