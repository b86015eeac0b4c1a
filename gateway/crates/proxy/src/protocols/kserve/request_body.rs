//! The body of a request to an endpoint, checked message by message.

use crate::base::problem::Problem;
use crate::protocols::kserve::framing::{Broken, Framer};
use crate::protocols::kserve::message::{Fault, framed, model_name};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Self::BAD_MESSAGE,
            Fault::ModelTwice => Self::MODEL_TWICE,
            Fault::ModelMissing => Self::MODEL_MISSING,
            Fault::BadModel => Self::BAD_MODEL,
        }
    }
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Compressed => Self::COMPRESSED,
            Broken::TooLarge => Self::TOO_LARGE,
        }
    }
}

/// The rest of the request is not sent; the stream to the endpoint is reset.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the request is withheld")]
pub struct Withheld;

/// What is wrong with a caller's later messages. The request's body reports it, the answer's body ends with it.
#[derive(Default)]
pub struct StreamProblem {
    problem: Cell<Option<Problem>>,
    waker: RefCell<Option<Waker>>,
    /// The answer is over: nothing more is sent.
    over: Cell<bool>,
    request: RefCell<Option<Waker>>,
}

impl StreamProblem {
    fn report(&self, problem: Problem) {
        self.problem.set(Some(problem));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The answer has ended or was dropped. Without this the caller's side would hold the endpoint's stream open.
    pub fn close(&self) {
        self.over.set(true);
        if let Some(waker) = self.request.borrow_mut().take() {
            waker.wake();
        }
    }

    fn is_over(&self, cx: &Context<'_>) -> bool {
        *self.request.borrow_mut() = Some(cx.waker().clone());
        self.over.get()
    }

    pub fn reported(&self) -> Option<Problem> {
        self.problem.get()
    }

    pub fn poll(&self, cx: &Context<'_>) -> Option<Problem> {
        let problem = self.problem.get();
        if problem.is_none() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        problem
    }
}

/// The caller's stream of requests. Each names its model again, and no other than the first.
pub struct CallerStream {
    body: Incoming,
    framer: Framer,
    first: Option<Bytes>,
    model: Box<str>,
    pub upstream_model: Option<Box<str>>,
    message_bytes_max: usize,
    queue: VecDeque<Bytes>,
    pub stream_problem: Rc<StreamProblem>,
}

impl CallerStream {
    /// Reads the first message, which names the model.
    pub async fn open(mut body: Incoming, message_bytes_max: usize) -> Result<Self, Problem> {
        let mut framer = Framer::default();
        let first = loop {
            if let Some(first) = framer.next(message_bytes_max)? {
                break first;
            }
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(frame)) => framer.push(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(_)) | None => return Err(Problem::BODY_BROKEN),
            }
        };
        let model = model_name(&first)?.name.into();
        let (queue, stream_problem) = (VecDeque::new(), Rc::default());
        Ok(Self { body, framer, first: Some(first), model, upstream_model: None, message_bytes_max, queue, stream_problem })
    }

    pub fn first(&self) -> Option<Bytes> {
        self.first.clone()
    }

    pub fn model(&self) -> &str {
        &self.model
    }

    fn pass(&mut self, message: &Bytes) -> Result<(), Problem> {
        if model_name(message)?.name != &*self.model {
            return Err(Problem::MODEL_FIXED);
        }
        self.queue.extend(framed(message, self.upstream_model.as_deref()));
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Problem>> {
        loop {
            if let Some(piece) = self.queue.pop_front() {
                return Poll::Ready(Ok(Some(piece)));
            }
            let next = match self.first.take() {
                None => self.framer.next(self.message_bytes_max)?,
                first => first,
            };
            if let Some(message) = next {
                self.pass(&message)?;
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.framer.push(frame.data_ref().map_or(&[][..], |data| data)),
                None if self.framer.is_empty() => return Poll::Ready(Ok(None)),
                Some(Err(_)) | None => return Poll::Ready(Err(Problem::BODY_BROKEN)),
            }
        }
    }
}

/// A request on its way to an endpoint.
pub enum GrpcRequestBody {
    Whole(std::vec::IntoIter<Bytes>),
    Stream(Box<CallerStream>),
}

impl Body for GrpcRequestBody {
    type Data = Bytes;
    type Error = Withheld;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        match self.get_mut() {
            Self::Whole(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            Self::Stream(stream) if stream.stream_problem.is_over(cx) => Poll::Ready(Some(Err(Withheld))),
            Self::Stream(stream) => match ready!(stream.poll(cx)) {
                Ok(piece) => Poll::Ready(piece.map(|piece| Ok(Frame::data(piece)))),
                Err(problem) => {
                    stream.stream_problem.report(problem);
                    Poll::Ready(Some(Err(Withheld)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(pieces) if pieces.len() == 0)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(pieces) => SizeHint::with_exact(pieces.as_slice().iter().map(|piece| piece.len() as u64).sum()),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
