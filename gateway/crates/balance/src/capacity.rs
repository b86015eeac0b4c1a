//! How many calls run at one server, and which calls wait for one of them to end.
//!
//! Several endpoints, also of several tenants, may be the same server with the same credential. They share its
//! capacity, so that fairness works across tenants. Each endpoint's own maximum is compared with the calls of all.
//!
//! While no call waits this is one atomic number. A call that finds no room joins the queue under its mutex and then
//! checks again. A call that ends first lowers the number and then checks whether any call waits. One of the two sees
//! the other, so no call is forgotten. A freed slot is granted directly to the next call in the queue; newcomers cannot
//! take it.

use crate::fair_queue::{FairQueue, FlowId, QueuePosition, TokenCharge, Turn};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Callers would not wait for a longer queue, and its memory must be bounded.
pub const QUEUE_LEN_MAX: usize = 4_096;
/// The longest `Retry-After` that callers get.
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
    fair: FairQueue<QueueEntry>,
    /// Mean time between two freed slots, and when the last was freed.
    pace: Option<Duration>,
    last: Option<Instant>,
}

#[derive(Debug)]
struct QueueEntry {
    waiter: Arc<Waiter>,
    route: u32,
    running_max: u32,
}

/// One call in one or several queues.
#[derive(Debug, Default)]
struct Waiter {
    state: Mutex<WaiterState>,
}

#[derive(Debug, Default)]
enum WaiterState {
    #[default]
    New,
    Parked(Waker),
    Granted {
        route: u32,
        charge: TokenCharge,
    },
    Evicted,
    Gone,
}

impl Waiter {
    fn lock(&self) -> MutexGuard<'_, WaiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the wait with `result` and wakes the call. Returns whether it was still waiting.
    fn resolve(&self, result: WaiterState) -> bool {
        let mut state = self.lock();
        let waker = match &mut *state {
            WaiterState::New => None,
            WaiterState::Parked(waker) => Some(waker.clone()),
            _ => return false,
        };
        *state = result;
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

    /// Whether a newcomer may enter: there is room, and no call waits.
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

    /// Grants the free slots to the calls whose turn it is.
    fn hand_out(&self, freed: bool) {
        let mut queue = self.lock();
        if freed {
            queue.record_freed_slot(Instant::now());
        }
        while let Some((charge, entry)) = queue.fair.next(|entry| self.turn(entry)) {
            // `turn` has entered the slot; if the call has just left, it is freed again.
            if !entry.waiter.resolve(WaiterState::Granted { route: entry.route, charge }) {
                queue.fair.correct(charge, 0);
                self.running.fetch_sub(1, SeqCst);
            }
        }
        self.waiting.store(u32::try_from(queue.fair.len()).unwrap_or(u32::MAX), SeqCst);
    }

    fn turn(&self, entry: &QueueEntry) -> Turn {
        match *entry.waiter.lock() {
            WaiterState::New | WaiterState::Parked(_) if self.enter_past(entry.running_max) => Turn::Takes,
            WaiterState::New | WaiterState::Parked(_) => Turn::Passes,
            _ => Turn::Left,
        }
    }

    fn join(&self, request: QueueRequest, entry: QueueEntry) -> Option<QueuePosition> {
        let mut queue = self.lock();
        // A call that ends from here on sees this, and then waits for the mutex.
        self.waiting.fetch_add(1, SeqCst);
        let joined = queue.fair.join(request.band, request.flow, request.tokens, entry);
        self.waiting.store(u32::try_from(queue.fair.len()).unwrap_or(u32::MAX), SeqCst);
        drop(queue);
        let (position, evicted) = joined.ok()?;
        if let Some(evicted) = evicted {
            evicted.waiter.resolve(WaiterState::Evicted);
        }
        self.hand_out(false);
        Some(position)
    }

    fn leave_queue(&self, position: QueuePosition) {
        let mut queue = self.lock();
        queue.fair.leave(position);
        self.waiting.store(u32::try_from(queue.fair.len()).unwrap_or(u32::MAX), SeqCst);
    }

    /// The call that was charged used this many tokens.
    pub fn correct(&self, charge: TokenCharge, tokens: u64) {
        self.lock().fair.correct(charge, tokens);
    }

    /// When a call at the end of this queue would get a slot.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        let queue = self.lock();
        let ahead = u32::try_from(queue.fair.len()).unwrap_or(u32::MAX).saturating_add(1);
        let wait = queue.pace.unwrap_or(Duration::from_secs(1)).saturating_mul(ahead);
        wait.clamp(Duration::from_secs(1), RETRY_AFTER_MAX)
    }
}

impl Queue {
    fn record_freed_slot(&mut self, now: Instant) {
        let Some(since) = self.last.replace(now).map(|last| now.saturating_duration_since(last)) else {
            return;
        };
        self.pace = Some(self.pace.map_or(since, |pace| (pace * 7 + since) / 8));
    }
}

/// The call that waits, and how much it will use.
#[derive(Clone, Copy, Debug)]
pub struct QueueRequest {
    /// 0 comes first.
    pub band: usize,
    pub flow: FlowId,
    /// An estimate of what the call will use.
    pub tokens: u64,
}

/// A call in the queues of all endpoints that may take it. When dropped, it leaves all of them.
#[derive(Debug)]
pub struct QueuedCall {
    waiter: Arc<Waiter>,
    positions: Vec<(Arc<Capacity>, QueuePosition, u32)>,
    taken: bool,
}

/// How the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueResult {
    /// The call has entered the slot: leave it when the call is over.
    Route { route: u32, charge: TokenCharge },
    /// The queue was full, and another call needed the room.
    Evicted,
}

impl QueuedCall {
    /// Joins the queues of `candidates` (route, its capacity, its maximum). `None` = every queue is full.
    #[must_use]
    pub fn join(request: QueueRequest, candidates: impl Iterator<Item = (u32, Arc<Capacity>, u32)>) -> Option<Self> {
        let waiter = Arc::new(Waiter::default());
        let mut queued = Self { waiter, positions: Vec::new(), taken: false };
        for (route, capacity, running_max) in candidates {
            let entry = QueueEntry { waiter: queued.waiter.clone(), route, running_max };
            if let Some(position) = capacity.join(request, entry) {
                queued.positions.push((capacity, position, route));
            }
        }
        (!queued.positions.is_empty()).then_some(queued)
    }

    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<QueueResult> {
        let mut state = self.waiter.lock();
        match &mut *state {
            WaiterState::Granted { route, charge } => {
                self.taken = true;
                Poll::Ready(QueueResult::Route { route: *route, charge: *charge })
            }
            WaiterState::Evicted | WaiterState::Gone => Poll::Ready(QueueResult::Evicted),
            WaiterState::Parked(waker) if waker.will_wake(context.waker()) => Poll::Pending,
            WaiterState::New | WaiterState::Parked(_) => {
                *state = WaiterState::Parked(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for QueuedCall {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *self.waiter.lock(), WaiterState::Gone);
        self.positions.iter().for_each(|(capacity, position, _)| capacity.leave_queue(*position));
        let WaiterState::Granted { route, charge } = state else {
            return;
        };
        // The slot was granted just when the caller left.
        if let Some((capacity, ..)) = self.positions.iter().find(|(_, _, own)| *own == route && !self.taken) {
            capacity.correct(charge, 0);
            capacity.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: QueueRequest = QueueRequest { band: 1, flow: 1, tokens: 10 };

    fn wait(capacity: &Arc<Capacity>, request: QueueRequest) -> Option<QueuedCall> {
        QueuedCall::join(request, std::iter::once((0, capacity.clone(), 1)))
    }

    fn poll(queued: &mut QueuedCall) -> Option<QueueResult> {
        match queued.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(grant) => Some(grant),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_freed_slot_goes_to_the_next_and_not_to_a_newcomer() {
        let capacity = Arc::new(Capacity::default());
        assert!(capacity.enter(1) && !capacity.enter(1));
        let mut first = wait(&capacity, REQUEST).unwrap();
        let mut second = wait(&capacity, REQUEST).unwrap();
        assert_eq!((poll(&mut first), poll(&mut second), capacity.waiting()), (None, None, 2));
        capacity.leave();
        assert!(matches!(poll(&mut first), Some(QueueResult::Route { route: 0, .. })));
        assert_eq!((poll(&mut second), capacity.running(), capacity.waiting()), (None, 1, 1));
        assert!(!capacity.has_room(2) && !capacity.enter(2), "another call waits already");
        assert!(capacity.enter(0), "but a call without a maximum never waits");
        capacity.leave();
        capacity.leave();
        assert!(poll(&mut second).is_some());
        capacity.leave();
        assert_eq!((capacity.running(), capacity.waiting()), (0, 0));
    }

    #[test]
    fn a_call_that_leaves_frees_every_queue_and_a_slot_just_granted() {
        let (one, two) = (Arc::new(Capacity::default()), Arc::new(Capacity::default()));
        assert!(one.enter(1) && two.enter(1));
        let both = |request| QueuedCall::join(request, [(0, one.clone(), 1), (1, two.clone(), 1)].into_iter()).unwrap();
        let (left, mut stays) = (both(REQUEST), both(REQUEST));
        assert_eq!((one.waiting(), two.waiting()), (2, 2));
        one.leave();
        drop(left);
        assert!(matches!(poll(&mut stays), Some(QueueResult::Route { route: 0, .. })), "what the one was given went on to the other");
        drop(stays);
        assert_eq!((one.running(), one.waiting(), two.running(), two.waiting()), (1, 0, 1, 0));
    }

    #[test]
    fn a_full_queue_evicts_the_hog() {
        let capacity = Arc::new(Capacity::with_queue(2));
        assert!(capacity.enter(1));
        let mut hog: Vec<_> = (0..2).map(|_| wait(&capacity, REQUEST).unwrap()).collect();
        assert!(wait(&capacity, REQUEST).is_none());
        let _small = wait(&capacity, QueueRequest { flow: 2, ..REQUEST }).unwrap();
        assert_eq!(poll(&mut hog[1]), Some(QueueResult::Evicted));
        assert_eq!(poll(&mut hog[0]), None);
    }

    #[test]
    fn threads_never_exceed_the_maximum_and_all_are_served() {
        let capacity = Arc::new(Capacity::default());
        let peak = AtomicU32::new(0);
        let call = |flow| {
            if !capacity.enter(3) {
                let mut queued = QueuedCall::join(QueueRequest { flow, ..REQUEST }, std::iter::once((0, capacity.clone(), 3))).unwrap();
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
