//! Calls that run: what the sweep needs to end them from outside, by deadline or because their key was revoked.

use crate::problem::Problem;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
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

/// Why a call was ended.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub problem: Problem,
    pub timeout: bool,
}

pub struct Live {
    pub key: Arc<Key>,
    pub started: Instant,
    phase: Cell<(Phase, Instant)>,
    timeouts: Cell<Timeouts>,
    queue: Cell<Duration>,
    cut: Cell<Option<Cut>>,
    waker: RefCell<Option<Waker>>,
}

impl Live {
    pub fn new(key: Arc<Key>, started: Instant) -> Self {
        let phase = Cell::new((Phase::Connect, started));
        Self { key, started, phase, timeouts: Cell::default(), queue: Cell::default(), cut: Cell::new(None), waker: RefCell::new(None) }
    }

    pub fn limit(&self, timeouts: Timeouts) {
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

    pub fn cut(&self) -> Option<Cut> {
        self.cut.get()
    }

    /// What took too long at one endpoint is forgiven when another is tried.
    pub fn forgive(&self) {
        if self.cut.get().is_some_and(|cut| cut.timeout) {
            self.cut.set(None);
        }
    }

    pub fn end(&self, cut: Cut) {
        if self.cut.get().is_none() {
            self.cut.set(Some(cut));
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

    /// The future, unless the call is ended first. Who comes together comes second: what was ready when the call had been ended is not begun,
    /// so that the caller can still be told why in an answer of its own.
    ///
    /// A large future is pinned where it stands (`pin!`): handed over, it would be copied, and its place stay empty.
    pub fn race<F: Future + Unpin>(&self, mut future: F) -> impl Future<Output = Result<F::Output, Cut>> + Unpin {
        poll_fn(move |cx| {
            if let Some(cut) = self.cut.get() {
                return Poll::Ready(Err(cut));
            }
            let polled = Pin::new(&mut future).poll(cx).map(Ok);
            if polled.is_pending() {
                self.park(cx.waker());
            }
            polled
        })
    }

    pub fn overdue(&self, now: Instant) -> Option<Problem> {
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

/// A list whose places are used again.
pub struct Registry<T> {
    places: RefCell<Vec<Option<Rc<T>>>>,
    free: RefCell<Vec<usize>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { places: RefCell::default(), free: RefCell::default() }
    }
}

impl<T> Registry<T> {
    pub fn insert(&self, item: Rc<T>) -> usize {
        let mut places = self.places.borrow_mut();
        if let Some(place) = self.free.borrow_mut().pop() {
            places[place] = Some(item);
            return place;
        }
        places.push(Some(item));
        places.len() - 1
    }

    pub fn remove(&self, place: usize) {
        if self.places.borrow_mut()[place].take().is_some() {
            self.free.borrow_mut().push(place);
        }
    }

    pub fn len(&self) -> usize {
        self.places.borrow().len() - self.free.borrow().len()
    }

    /// `each` may wake tasks but not insert or remove: it runs on the list itself.
    pub fn each(&self, each: impl FnMut(&Rc<T>)) {
        self.places.borrow().iter().flatten().for_each(each);
    }
}
