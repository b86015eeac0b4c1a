//! One caller's connection: when it is idle, and how it is told to go.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The next answer says that it is the last; until then the connection stays, idle or not.
    AfterNext,
    /// Finish the answer that runs, then close.
    Gracefully,
    Now,
}

pub struct Watch {
    busy: Cell<bool>,
    since: Cell<Instant>,
    leave: Cell<Option<Leave>>,
    waker: RefCell<Option<Waker>>,
    /// A piece of an answer was given and hyper has not come back for the next: the caller does not read, or not fast enough.
    at_caller: Cell<bool>,
    pieces: Cell<u64>,
    /// Pieces at an earlier look, and when they were so many.
    seen: Cell<(u64, Instant)>,
}

impl Watch {
    pub fn new(now: Instant) -> Self {
        Self {
            busy: Cell::new(false),
            since: Cell::new(now),
            leave: Cell::new(None),
            waker: RefCell::new(None),
            at_caller: Cell::new(false),
            pieces: Cell::new(0),
            seen: Cell::new((0, now)),
        }
    }

    pub fn begin(self: &Rc<Self>, now: Instant) -> Busy {
        self.busy.set(true);
        self.since.set(now);
        Busy(self.clone())
    }

    pub fn idle_since(&self) -> Option<Instant> {
        (!self.busy.get()).then(|| self.since.get())
    }

    /// Looked at from time to time: whether the caller has taken nothing for so long.
    pub fn is_stalled(&self, now: Instant, stall_max: Duration) -> bool {
        let (pieces, since) = self.seen.get();
        if !self.at_caller.get() || pieces != self.pieces.get() {
            self.seen.set((self.pieces.get(), now));
            return false;
        }
        now.saturating_duration_since(since) > stall_max
    }

    pub fn tell(&self, leave: Leave) {
        self.leave.set(Some(leave));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub fn told(&self, waker: &Waker) -> Option<Leave> {
        let told = self.leave.get();
        let mut parked = self.waker.borrow_mut();
        if !parked.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *parked = Some(waker.clone());
        }
        told
    }
}

/// While it lives, the connection is not idle.
pub struct Busy(Rc<Watch>);

impl Busy {
    /// The answer's next piece was asked for, and there was one or not.
    pub fn asked(&self, given: bool) {
        self.0.at_caller.set(given);
        if given {
            self.0.pieces.set(self.0.pieces.get().wrapping_add(1));
        }
    }

    pub fn is_leaving(&self) -> bool {
        self.0.leave.get().is_some()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.at_caller.set(false);
    }
}
