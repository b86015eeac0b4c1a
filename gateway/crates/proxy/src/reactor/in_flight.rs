//! Calls that run: what the sweep needs to abort them, at a deadline or because their key was revoked.

use crate::base::problem::Problem;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};
use tenon_snapshot::{Key, Timeouts};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// For a saturated endpoint.
    Queue,
    Connect,
    Headers,
    FirstToken,
    Stream,
}

/// Why a call was aborted.
#[derive(Clone, Copy, Debug)]
pub struct Abort {
    pub problem: Problem,
    pub timeout: bool,
}

pub struct InFlightCall {
    pub key: Arc<Key>,
    pub started: Instant,
    phase: Cell<(Phase, Instant)>,
    timeouts: Cell<Timeouts>,
    queue: Cell<Duration>,
    abort: Cell<Option<Abort>>,
    waker: RefCell<Option<Waker>>,
}

impl InFlightCall {
    pub fn new(key: Arc<Key>, started: Instant) -> Self {
        let phase = Cell::new((Phase::Connect, started));
        Self { key, started, phase, timeouts: Cell::default(), queue: Cell::default(), abort: Cell::new(None), waker: RefCell::new(None) }
    }

    pub fn set_timeouts(&self, timeouts: Timeouts) {
        self.timeouts.set(timeouts);
    }

    /// A phase begins, or moved on. `now` may be some milliseconds old: deadlines are swept, not timed.
    pub fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set((phase, now));
    }

    pub fn wait_in_queue(&self, limit: Duration, now: Instant) {
        self.queue.set(limit);
        self.enter(Phase::Queue, now);
    }

    pub fn aborted(&self) -> Option<Abort> {
        self.abort.get()
    }

    /// A timeout at one endpoint does not count when another is tried.
    pub fn clear_timeout(&self) {
        if self.abort.get().is_some_and(|abort| abort.timeout) {
            self.abort.set(None);
        }
    }

    pub fn abort(&self, abort: Abort) {
        if self.abort.get().is_none() {
            self.abort.set(Some(abort));
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    pub fn park(&self, waker: &Waker) {
        let mut parked = self.waker.borrow_mut();
        if !parked.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *parked = Some(waker.clone());
        }
    }

    /// The future, unless the call is aborted first. The abort wins a tie, so that the caller still gets the reason in an
    /// answer of its own.
    ///
    /// Pin a large future where it is (`pin!`): passed by value, it would be copied.
    pub fn race<F: Future + Unpin>(&self, mut future: F) -> impl Future<Output = Result<F::Output, Abort>> + Unpin {
        poll_fn(move |cx| {
            if let Some(abort) = self.abort.get() {
                return Poll::Ready(Err(abort));
            }
            let polled = Pin::new(&mut future).poll(cx).map(Ok);
            if polled.is_pending() {
                self.park(cx.waker());
            }
            polled
        })
    }

    /// The timeout that has expired.
    pub fn expired(&self, now: Instant) -> Option<Problem> {
        let (phase, since) = self.phase.get();
        let timeouts = self.timeouts.get();
        let (limit, problem) = match phase {
            Phase::Queue => (self.queue.get(), Problem::QUEUE_TIMEOUT),
            Phase::Connect => (timeouts.connect, Problem::CONNECT_TIMEOUT),
            Phase::Headers => (timeouts.headers, Problem::HEADERS_TIMEOUT),
            Phase::FirstToken => (timeouts.first_token, Problem::FIRST_TOKEN_TIMEOUT),
            Phase::Stream => (timeouts.idle, Problem::IDLE_TIMEOUT),
        };
        if !timeouts.total.is_zero() && now.saturating_duration_since(self.started) > timeouts.total {
            return Some(Problem::TOTAL_TIMEOUT);
        }
        (!limit.is_zero() && now.saturating_duration_since(since) > limit).then_some(problem)
    }
}
