//! Why a call went as it went: notes of fixed size that travel with it, and the last ones of each thread, for `explain`.
//!
//! Noting costs stores into memory the call has anyway; a call that ended is moved into its thread's ring under a lock that is taken by
//! nobody else but a reader of `explain`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tenon_balance::{Ask, Group, Look};
use tenon_dialects::openai::Usage;
use tenon_limits::Exceeded;
use tenon_snapshot::{Key, Model};
use tenon_usage::{Operation, RecordId, UsageSource};

/// More attempts than this are counted, not kept.
pub const ATTEMPTS_MAX: usize = 4;

/// What is noted while a call runs.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// `None` = there was nothing to choose, or nobody wants to know.
    pub seen: Option<Box<Seen>>,
    attempts: [Attempt; ATTEMPTS_MAX],
    /// All of them, kept or not.
    attempted: u8,
    /// Time in the queue for a saturated endpoint.
    pub queued: Duration,
    /// The limit that refused the call, or the last answer of a session.
    pub limit: Option<Exceeded>,
    /// Of a call that found no route.
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
    /// Empty = it answered, or runs.
    pub code: &'static str,
}

/// The routes of the model, as they stood when one was looked for.
#[derive(Clone, Debug)]
pub struct Seen {
    /// In the order of the model's routes.
    pub looks: Box<[Look]>,
    /// The call had something to be recognised by.
    pub by_affinity: bool,
}

impl Trail {
    /// A route is looked for among the `open` ones. Of those that were tried before, what was seen then stays.
    pub fn look(&mut self, group: &Group, open: u64, ask: &Ask) {
        let looks = group.look(open, ask);
        let by_affinity = ask.affinity.is_some();
        let Some(seen) = &mut self.seen else {
            self.seen = Some(Box::new(Seen { looks, by_affinity }));
            return;
        };
        for (index, look) in looks.into_iter().enumerate().filter(|(index, _)| open & 1 << index != 0) {
            seen.looks[index] = look;
        }
    }

    pub fn attempt(&mut self, route: usize, since_arrival: Duration) {
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

    pub fn connection(&mut self, kept: bool) {
        if let Some(attempt) = self.running() {
            attempt.kept_connection = kept;
        }
    }

    /// The head of an answer came.
    pub fn answered(&mut self, status: u16, since_arrival: Duration) {
        if let Some(attempt) = self.running() {
            attempt.status = status;
            attempt.took_us = micros(since_arrival).saturating_sub(attempt.began_us);
        }
    }

    pub fn failed(&mut self, code: &'static str, since_arrival: Duration) {
        if let Some(attempt) = self.running() {
            attempt.code = code;
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

/// A call that ended.
#[derive(Clone, Debug)]
pub struct Past {
    pub id: RecordId,
    pub key: Arc<Key>,
    /// `None` = it was refused before a model was found.
    pub model: Option<Arc<Model>>,
    pub operation: Operation,
    pub streamed: bool,
    pub started_unix_us: i64,
    pub took: Duration,
    pub first_token: Option<Duration>,
    pub outcome: &'static str,
    pub http_status: u16,
    pub code: Option<&'static str>,
    pub usage: Option<(Usage, UsageSource)>,
    pub trail: Trail,
}

/// The last calls of all threads, each thread's in a ring of its own.
#[derive(Clone, Debug)]
pub struct Trails {
    rings: Arc<[Mutex<Ring>]>,
    calls_max: usize,
}

#[derive(Debug, Default)]
struct Ring {
    /// Filled as calls come, so that an idle gateway does not pay for it.
    past: Vec<Past>,
    next: usize,
}

impl Trails {
    /// `calls_max` for each thread; zero = nothing is kept.
    #[must_use]
    pub fn new(threads: usize, calls_max: usize) -> Self {
        Self { rings: (0..threads).map(|_| Mutex::default()).collect(), calls_max }
    }

    pub fn are_kept(&self) -> bool {
        self.calls_max > 0
    }

    pub fn leave(&self, thread: usize, past: Past) {
        let Some(ring) = self.rings.get(thread) else {
            return;
        };
        let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.past.len() < self.calls_max {
            ring.past.push(past);
        } else if let Some(at) = ring.next.checked_rem(self.calls_max) {
            ring.past[at] = past;
            ring.next = at + 1;
        }
    }

    #[must_use]
    pub fn find(&self, request_id: &str) -> Option<Past> {
        let id = RecordId::parse(request_id)?;
        self.rings.iter().find_map(|ring| {
            let ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
            ring.past.iter().find(|past| past.id == id).cloned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_beyond_the_kept_ones_are_counted() {
        let mut trail = Trail::default();
        for route in 0..6 {
            trail.attempt(route, Duration::from_micros(10 * route as u64));
            trail.failed("upstream_unreachable", Duration::from_micros(10 * route as u64 + 3));
        }
        assert_eq!((trail.attempted(), trail.attempts().len()), (6, ATTEMPTS_MAX));
        assert_eq!((trail.attempts()[3].began_us, trail.attempts()[3].took_us), (30, 3));
    }
}
