//! One caller's connection: whether it is idle or stalled, and how it is asked to close.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The next answer says that it is the last; until then the connection stays open, idle or not.
    AfterNext,
    /// Finish the running answer, then close.
    Gracefully,
    Now,
}

pub struct CallerConnection {
    busy: Cell<bool>,
    since: Cell<Instant>,
    close: Cell<Option<Close>>,
    waker: RefCell<Option<Waker>>,
    /// A piece of an answer was handed to hyper, which has not asked for the next: the caller does not read, or not fast enough.
    at_caller: Cell<bool>,
    pieces: Cell<u64>,
    /// The number of pieces at an earlier check, and since when it is unchanged.
    checked: Cell<(u64, Instant)>,
}

impl CallerConnection {
    pub fn new(now: Instant) -> Self {
        Self {
            busy: Cell::new(false),
            since: Cell::new(now),
            close: Cell::new(None),
            waker: RefCell::new(None),
            at_caller: Cell::new(false),
            pieces: Cell::new(0),
            checked: Cell::new((0, now)),
        }
    }

    pub fn begin_request(self: &Rc<Self>, now: Instant) -> BusyGuard {
        self.busy.set(true);
        self.since.set(now);
        BusyGuard(self.clone())
    }

    pub fn idle_since(&self) -> Option<Instant> {
        (!self.busy.get()).then(|| self.since.get())
    }

    /// Called now and then: whether the caller has taken nothing for longer than `stall_max`.
    pub fn is_stalled(&self, now: Instant, stall_max: Duration) -> bool {
        let (pieces, since) = self.checked.get();
        if !self.at_caller.get() || pieces != self.pieces.get() {
            self.checked.set((self.pieces.get(), now));
            return false;
        }
        now.saturating_duration_since(since) > stall_max
    }

    /// Asks the connection's task to close it.
    pub fn close(&self, how: Close) {
        self.close.set(Some(how));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// How it was asked to close. The waker is woken when that changes.
    pub fn poll_close(&self, waker: &Waker) -> Option<Close> {
        let close = self.close.get();
        let mut parked = self.waker.borrow_mut();
        if !parked.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *parked = Some(waker.clone());
        }
        close
    }
}

/// While it is held, the connection is not idle.
pub struct BusyGuard(Rc<CallerConnection>);

impl BusyGuard {
    /// Hyper asked for the answer's next piece. `has_piece` = there was one.
    pub fn note_poll(&self, has_piece: bool) {
        self.0.at_caller.set(has_piece);
        if has_piece {
            self.0.pieces.set(self.0.pieces.get().wrapping_add(1));
        }
    }

    pub fn is_closing(&self) -> bool {
        self.0.close.get().is_some()
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.busy.set(false);
        self.0.at_caller.set(false);
    }
}
