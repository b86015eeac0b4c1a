//! Why a call went as it did: notes of fixed size that travel with it, and the last calls of each thread, for `explain`.
//!
//! A note costs a store into memory that the call has anyway. A completed call is moved into its thread's ring, under a lock that only a reader
//! of `explain` takes besides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tenon_balance::{Group, RouteQuery, RouteState};
use tenon_dialects::Usage;
use tenon_limits::Exceeded;
use tenon_problem::ProblemCode;
use tenon_snapshot::{Key, Model};
use tenon_usage::{Operation, RecordId, UsageSource};

/// More attempts than this are counted, not kept.
pub const ATTEMPTS_MAX: usize = 4;

/// What is noted while a call runs.
#[derive(Clone, Debug, Default)]
pub struct CallTrace {
    /// `None` = there was nothing to choose, or nothing is kept.
    pub routes: Option<Box<RouteStates>>,
    attempts: [Attempt; ATTEMPTS_MAX],
    /// All of them, kept or not.
    attempted: u8,
    /// Time in the queue for a saturated endpoint.
    pub queued: Duration,
    /// The limit that refused the call, or the last answer of a session.
    pub limit: Option<Exceeded>,
    /// Of a call without a usable route.
    pub model: Option<Arc<Model>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt {
    pub route: u8,
    /// On a connection that was used before.
    pub kept_connection: bool,
    /// The upstream's; zero = none came.
    pub status: u16,
    /// From the call's arrival.
    pub began_us: u32,
    /// Until the answer's head, or until it failed.
    pub took_us: u32,
    /// `None` = it answered, or still runs.
    pub code: Option<ProblemCode>,
}

/// The state of the model's routes when one was chosen.
#[derive(Clone, Debug)]
pub struct RouteStates {
    /// In the order of the model's routes.
    pub states: Box<[RouteState]>,
    /// The call had a key for affinity.
    pub by_affinity: bool,
}

impl CallTrace {
    /// A route is about to be chosen among the `open` ones. The states of those that were tried before stay.
    pub fn note_routes(&mut self, group: &Group, open: u64, query: &RouteQuery) {
        let states = group.route_states(open, query);
        let by_affinity = query.affinity.is_some();
        let Some(routes) = &mut self.routes else {
            self.routes = Some(Box::new(RouteStates { states, by_affinity }));
            return;
        };
        for (index, state) in states.into_iter().enumerate().filter(|(index, _)| open & 1 << index != 0) {
            routes.states[index] = state;
        }
    }

    pub fn note_attempt(&mut self, route: usize, since_arrival: Duration) {
        let at = usize::from(self.attempted);
        self.attempted = self.attempted.saturating_add(1);
        if let Some(attempt) = self.attempts.get_mut(at) {
            *attempt = Attempt { route: u8::try_from(route).unwrap_or(u8::MAX), began_us: micros(since_arrival), ..Attempt::default() };
        }
    }

    /// The running attempt, when it is one of those that are kept.
    fn running(&mut self) -> Option<&mut Attempt> {
        self.attempts.get_mut(usize::from(self.attempted).checked_sub(1)?)
    }

    pub fn note_connection(&mut self, kept: bool) {
        if let Some(attempt) = self.running() {
            attempt.kept_connection = kept;
        }
    }

    /// The head of an answer came.
    pub fn note_answer(&mut self, status: u16, since_arrival: Duration) {
        if let Some(attempt) = self.running() {
            attempt.status = status;
            attempt.took_us = micros(since_arrival).saturating_sub(attempt.began_us);
        }
    }

    pub fn note_failure(&mut self, code: ProblemCode, since_arrival: Duration) {
        if let Some(attempt) = self.running() {
            attempt.code = Some(code);
            if attempt.took_us == 0 {
                attempt.took_us = micros(since_arrival).saturating_sub(attempt.began_us);
            }
        }
    }

    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts[..usize::from(self.attempted).min(ATTEMPTS_MAX)]
    }

    pub fn attempted(&self) -> u8 {
        self.attempted
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// A call that has ended.
#[derive(Clone, Debug)]
pub struct CompletedCall {
    pub id: RecordId,
    pub key: Arc<Key>,
    /// `None` = it was refused before its model was known.
    pub model: Option<Arc<Model>>,
    pub operation: Operation,
    pub streamed: bool,
    pub started_unix_us: i64,
    pub took: Duration,
    pub first_token: Option<Duration>,
    pub outcome: &'static str,
    pub http_status: u16,
    pub code: Option<ProblemCode>,
    pub usage: Option<(Usage, UsageSource)>,
    pub call_trace: CallTrace,
}

/// The last calls of all threads, each thread's in a ring of its own.
#[derive(Clone, Debug)]
pub struct CompletedCalls {
    rings: Arc<[Mutex<Ring>]>,
    calls_max: usize,
}

#[derive(Debug, Default)]
struct Ring {
    /// Filled as calls come, so that an idle gateway does not pay for it.
    calls: Vec<CompletedCall>,
    next: usize,
}

impl CompletedCalls {
    /// `calls_max` for each thread; zero = nothing is kept.
    #[must_use]
    pub fn new(threads: usize, calls_max: usize) -> Self {
        Self { rings: (0..threads).map(|_| Mutex::default()).collect(), calls_max }
    }

    pub fn are_kept(&self) -> bool {
        self.calls_max > 0
    }

    pub fn keep(&self, thread: usize, call: CompletedCall) {
        let Some(ring) = self.rings.get(thread) else {
            return;
        };
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.calls.len() < self.calls_max {
            ring.calls.push(call);
        } else if let Some(at) = ring.next.checked_rem(self.calls_max) {
            ring.calls[at] = call;
            ring.next = at + 1;
        }
    }

    #[must_use]
    pub fn find(&self, request_id: &str) -> Option<CompletedCall> {
        let id = RecordId::parse(request_id)?;
        self.rings.iter().find_map(|ring| {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.calls.iter().find(|call| call.id == id).cloned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_beyond_the_kept_ones_are_counted() {
        let mut call_trace = CallTrace::default();
        for route in 0..6 {
            call_trace.note_attempt(route, Duration::from_micros(10 * route as u64));
            call_trace.note_failure(ProblemCode::UpstreamUnreachable, Duration::from_micros(10 * route as u64 + 3));
        }
        assert_eq!((call_trace.attempted(), call_trace.attempts().len()), (6, ATTEMPTS_MAX));
        assert_eq!((call_trace.attempts()[3].began_us, call_trace.attempts()[3].took_us), (30, 3));
    }
}
