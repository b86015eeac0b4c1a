//! One caller's connection: when it is idle, and how it is told to go.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

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
}

impl Watch {
    pub fn new(now: Instant) -> Self {
        Self { busy: Cell::new(false), since: Cell::new(now), leave: Cell::new(None), waker: RefCell::new(None) }
    }

    pub fn begin(self: &Rc<Self>, now: Instant) -> Busy {
        self.busy.set(true);
        self.since.set(now);
        Busy(self.clone())
    }

    pub fn idle_since(&self) -> Option<Instant> {
        (!self.busy.get()).then(|| self.since.get())
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
    pub fn is_leaving(&self) -> bool {
        self.0.leave.get().is_some()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}
