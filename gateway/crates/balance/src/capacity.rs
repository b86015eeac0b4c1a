//! How many calls run at one server, and who waits for one of them to end.
//!
//! Several endpoints (of several tenants) may stand for the same server under the same credential: they share this, so that fairness
//! reaches across tenants. Each endpoint's own maximum is compared with the calls of all.
//!
//! While nobody waits it is one atomic number. Who finds no room joins the queue under its mutex and then looks again; who leaves takes
//! itself off first and then looks whether somebody waits: one of the two sees the other, so nobody is forgotten. A place that becomes free
//! is given to the next in the queue directly; newcomers cannot snatch it.

use crate::queue::{Charge, FairQueue, FlowId, Place, Turn};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A longer queue would outlive its callers' patience, and its memory is bounded.
pub const QUEUE_LEN_MAX: usize = 4_096;
/// Told to callers who must come again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
#[repr(align(128))]
pub struct Capacity {
    running: AtomicU32,
    waiting: AtomicU32,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    fair: FairQueue<Ticket>,
    /// Mean time between two places that became free, and when the last did.
    pace: Option<Duration>,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Ticket {
    waiter: Arc<Waiter>,
    route: u32,
    running_max: u32,
}

/// One call in one or several queues.
#[derive(Debug, Default)]
struct Waiter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Parked(Waker),
    Granted {
        route: u32,
        charge: Charge,
    },
    Evicted,
    Gone,
}

impl Waiter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it still waits, and its waker when it was told.
    fn tell(&self, told: State) -> bool {
        let mut state = self.lock();
        let waker = match &mut *state {
            State::New => None,
            State::Parked(waker) => Some(waker.clone()),
            _ => return false,
        };
        *state = told;
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self::with_queue(QUEUE_LEN_MAX)
    }
}

impl Capacity {
    #[must_use]
    pub fn with_queue(len_max: usize) -> Self {
        let queue = Queue { fair: FairQueue::new(len_max), pace: None, last: None };
        Self { running: AtomicU32::new(0), waiting: AtomicU32::new(0), queue: Mutex::new(queue) }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn running(&self) -> u32 {
        self.running.load(SeqCst)
    }

    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }

    /// Room for a newcomer: nobody waits before it.
    #[must_use]
    pub fn has_room(&self, running_max: u32) -> bool {
        running_max == 0 || (self.running() < running_max && self.waiting() == 0)
    }

    #[must_use]
    pub fn enter(&self, running_max: u32) -> bool {
        if running_max == 0 {
            self.running.fetch_add(1, SeqCst);
            return true;
        }
        self.waiting() == 0 && self.enter_past(running_max)
    }

    fn enter_past(&self, running_max: u32) -> bool {
        self.running.fetch_update(SeqCst, SeqCst, |running| (running < running_max).then_some(running + 1)).is_ok()
    }

    pub fn leave(&self) {
        self.running.fetch_sub(1, SeqCst);
        if self.waiting() > 0 {
            self.hand_out(true);
        }
    }

    /// Gives what is free to those whose turn it is.
    fn hand_out(&self, freed: bool) {
        let mut queue = self.lock();
        if freed {
            queue.keep_pace(Instant::now());
        }
        while let Some((charge, ticket)) = queue.fair.next(|ticket| self.turn(ticket)) {
            // The place was entered in `turn`; a waiter that has just left gives it back.
            if !ticket.waiter.tell(State::Granted { route: ticket.route, charge }) {
                queue.fair.correct(charge, 0);
                self.running.fetch_sub(1, SeqCst);
            }
        }
        self.waiting.store(u32::try_from(queue.fair.len()).unwrap_or(u32::MAX), SeqCst);
    }

    fn turn(&self, ticket: &Ticket) -> Turn {
        match *ticket.waiter.lock() {
            State::New | State::Parked(_) if self.enter_past(ticket.running_max) => Turn::Takes,
            State::New | State::Parked(_) => Turn::Passes,
            _ => Turn::Left,
        }
    }

    fn join(&self, who: Who, ticket: Ticket) -> Option<Place> {
        let mut queue = self.lock();
        // Seen by whoever leaves from here on: it waits for the mutex then.
        self.waiting.fetch_add(1, SeqCst);
        let joined = queue.fair.join(who.band, who.flow, who.tokens, ticket);
        self.waiting.store(u32::try_from(queue.fair.len()).unwrap_or(u32::MAX), SeqCst);
        drop(queue);
        let (place, evicted) = joined.ok()?;
        if let Some(evicted) = evicted {
            evicted.waiter.tell(State::Evicted);
        }
        self.hand_out(false);
        Some(place)
    }

    fn give_up(&self, place: Place) {
        let mut queue = self.lock();
        queue.fair.leave(place);
        self.waiting.store(u32::try_from(queue.fair.len()).unwrap_or(u32::MAX), SeqCst);
    }

    /// The call that was charged used this many tokens.
    pub fn correct(&self, charge: Charge, tokens: u64) {
        self.lock().fair.correct(charge, tokens);
    }

    /// When somebody at the end of this queue would have had a place.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let queue = self.lock();
        let ahead = u32::try_from(queue.fair.len()).unwrap_or(u32::MAX).saturating_add(1);
        let wait = queue.pace.unwrap_or(Duration::from_secs(1)).saturating_mul(ahead);
        wait.clamp(Duration::from_secs(1), RETRY_AFTER_MAX)
    }
}

impl Queue {
    fn keep_pace(&mut self, now: Instant) {
        let Some(since) = self.last.replace(now).map(|last| now.saturating_duration_since(last)) else {
            return;
        };
        self.pace = Some(self.pace.map_or(since, |pace| (pace * 7 + since) / 8));
    }
}

/// Who waits, and for how much.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// 0 comes first.
    pub band: usize,
    pub flow: FlowId,
    /// What the call will use, as far as one can say.
    pub tokens: u64,
}

/// A place in the queues of all endpoints that may take the call. Dropped, it is given up everywhere.
#[derive(Debug)]
pub struct Queued {
    waiter: Arc<Waiter>,
    places: Vec<(Arc<Capacity>, Place, u32)>,
    taken: bool,
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The place is entered: leave it when the call is over.
    Route { route: u32, charge: Charge },
    /// A fuller queue needed the place.
    Evicted,
}

impl Queued {
    /// Joins the queues of `candidates` (route, its capacity, its maximum). `None` = every queue is full.
    #[must_use]
    pub fn join(who: Who, candidates: impl Iterator<Item = (u32, Arc<Capacity>, u32)>) -> Option<Self> {
        let waiter = Arc::new(Waiter::default());
        let mut queued = Self { waiter, places: Vec::new(), taken: false };
        for (route, capacity, running_max) in candidates {
            let ticket = Ticket { waiter: queued.waiter.clone(), route, running_max };
            if let Some(place) = capacity.join(who, ticket) {
                queued.places.push((capacity, place, route));
            }
        }
        (!queued.places.is_empty()).then_some(queued)
    }

    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Grant> {
        let mut state = self.waiter.lock();
        match &mut *state {
            State::Granted { route, charge } => {
                self.taken = true;
                Poll::Ready(Grant::Route { route: *route, charge: *charge })
            }
            State::Evicted | State::Gone => Poll::Ready(Grant::Evicted),
            State::Parked(waker) if waker.will_wake(context.waker()) => Poll::Pending,
            State::New | State::Parked(_) => {
                *state = State::Parked(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.waiter.lock(), State::Gone);
        self.places.iter().for_each(|(capacity, place, _)| capacity.give_up(*place));
        let State::Granted { route, charge } = state else {
            return;
        };
        // Granted in the moment when the caller left.
        if let Some((capacity, ..)) = self.places.iter().find(|(_, _, own)| *own == route && !self.taken) {
            capacity.correct(charge, 0);
            capacity.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Who = Who { band: 1, flow: 1, tokens: 10 };

    fn wait(capacity: &Arc<Capacity>, who: Who) -> Option<Queued> {
        Queued::join(who, std::iter::once((0, capacity.clone(), 1)))
    }

    fn poll(queued: &mut Queued) -> Option<Grant> {
        match queued.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(grant) => Some(grant),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_free_place_goes_to_the_next_and_not_to_a_newcomer() {
        let capacity = Arc::new(Capacity::default());
        assert!(capacity.enter(1) && !capacity.enter(1));
        let mut first = wait(&capacity, WHO).unwrap();
        let mut second = wait(&capacity, WHO).unwrap();
        assert_eq!((poll(&mut first), poll(&mut second), capacity.waiting()), (None, None, 2));
        capacity.leave();
        assert!(matches!(poll(&mut first), Some(Grant::Route { route: 0, .. })));
        assert_eq!((poll(&mut second), capacity.running(), capacity.waiting()), (None, 1, 1));
        assert!(!capacity.has_room(2) && !capacity.enter(2), "somebody waits before you");
        assert!(capacity.enter(0), "but who has no maximum waits for nobody");
        capacity.leave();
        capacity.leave();
        assert!(poll(&mut second).is_some());
        capacity.leave();
        assert_eq!((capacity.running(), capacity.waiting()), (0, 0));
    }

    #[test]
    fn who_leaves_frees_every_queue_and_a_place_just_given() {
        let (one, two) = (Arc::new(Capacity::default()), Arc::new(Capacity::default()));
        assert!(one.enter(1) && two.enter(1));
        let both = |who| Queued::join(who, [(0, one.clone(), 1), (1, two.clone(), 1)].into_iter()).unwrap();
        let (left, mut stays) = (both(WHO), both(WHO));
        assert_eq!((one.waiting(), two.waiting()), (2, 2));
        one.leave();
        drop(left);
        assert!(matches!(poll(&mut stays), Some(Grant::Route { route: 0, .. })), "what the one was given went on to the other");
        drop(stays);
        assert_eq!((one.running(), one.waiting(), two.running(), two.waiting()), (1, 0, 1, 0));
    }

    #[test]
    fn a_full_queue_evicts_the_hog() {
        let capacity = Arc::new(Capacity::with_queue(2));
        assert!(capacity.enter(1));
        let mut hog: Vec<_> = (0..2).map(|_| wait(&capacity, WHO).unwrap()).collect();
        assert!(wait(&capacity, WHO).is_none());
        let _small = wait(&capacity, Who { flow: 2, ..WHO }).unwrap();
        assert_eq!(poll(&mut hog[1]), Some(Grant::Evicted));
        assert_eq!(poll(&mut hog[0]), None);
    }

    #[test]
    fn threads_never_exceed_the_maximum_and_all_are_served() {
        let capacity = Arc::new(Capacity::default());
        let peak = AtomicU32::new(0);
        let call = |flow| {
            if !capacity.enter(3) {
                let mut queued = Queued::join(Who { flow, ..WHO }, std::iter::once((0, capacity.clone(), 3))).unwrap();
                while poll(&mut queued).is_none() {
                    std::thread::yield_now();
                }
            }
            peak.fetch_max(capacity.running(), SeqCst);
            capacity.leave();
        };
        std::thread::scope(|scope| {
            (0..4).for_each(|flow| drop(scope.spawn(move || (0..2_000).for_each(|_| call(flow)))));
        });
        assert!(peak.load(SeqCst) <= 3);
        assert_eq!((capacity.running(), capacity.waiting()), (0, 0));
    }
}
