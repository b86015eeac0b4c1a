//! The state of one limit in this process: its share of the fleet's numbers, what is used of it, and the demand.
//!
//! The state outlives the governance table that the limit came from; a new table refers to it by its id.

use crate::window::{SlotIndex, Window};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{self, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use tenon_contract as wire;
use tenon_contract::Subject;

/// Until its first share arrives, a process takes this part of the limit. The first share comes milliseconds after the
/// stream opens; without it, up to this many gateways together stay within the limit.
const PARTS_WITHOUT_SHARE: u64 = 4;

/// What a limit limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    Requests,
    Tokens,
    Concurrency,
}

/// Zero = not limited in this respect.
#[derive(Debug, Default)]
struct Numbers {
    requests: AtomicU64,
    tokens: AtomicU64,
    concurrency: AtomicU64,
}

#[derive(Debug, Default)]
struct Demand {
    requests: AtomicU64,
    tokens: AtomicU64,
    /// The highest demand at one moment.
    concurrency: AtomicU64,
}

#[derive(Debug)]
#[repr(align(128))]
pub struct Limit {
    /// Running calls.
    running: AtomicU64,
    demand: Demand,
    pub id: Box<str>,
    subject: AtomicI32,
    fleet: Numbers,
    share: Numbers,
    /// A share has arrived.
    has_share: AtomicBool,
    /// The last report contained a demand, so a zero must be reported once.
    must_report: AtomicBool,
    /// Created at the first use: most keys of a large installation are idle.
    requests: OnceLock<Box<Window>>,
    tokens: OnceLock<Box<Window>>,
}

/// Which limit refused the call, and when another attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub kind: LimitKind,
    pub subject: Subject,
    /// The fleet's limit.
    pub limit: u64,
    /// What is left of this process's share.
    pub remaining: u64,
    pub retry_after_us: u64,
}

impl Limit {
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            running: AtomicU64::new(0),
            demand: Demand::default(),
            id: id.into(),
            subject: AtomicI32::new(0),
            fleet: Numbers::default(),
            share: Numbers::default(),
            has_share: AtomicBool::new(false),
            // A new limit is reported once, so that its share comes before it is needed.
            must_report: AtomicBool::new(true),
            requests: OnceLock::new(),
            tokens: OnceLock::new(),
        }
    }

    /// Sets what the fleet may use, from the newest table.
    pub fn set(&self, wire: &wire::Limit) {
        self.subject.store(wire.subject, Relaxed);
        self.fleet.requests.store(wire.requests_per_minute, Relaxed);
        self.fleet.tokens.store(wire.tokens_per_minute, Relaxed);
        self.fleet.concurrency.store(u64::from(wire.concurrency), Relaxed);
    }

    /// Sets what this process may use, until the next share arrives.
    pub fn share(&self, wire: &wire::Share) {
        self.share.requests.store(wire.requests_per_minute, Relaxed);
        self.share.tokens.store(wire.tokens_per_minute, Relaxed);
        self.share.concurrency.store(u64::from(wire.concurrency), Relaxed);
        self.has_share.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn has_share(&self) -> bool {
        self.has_share.load(Ordering::Acquire)
    }

    /// The demand since the last report, and what is used now. `None` = nothing, and that was reported.
    pub fn take_demand(&self, now_us: u64) -> Option<wire::ShareDemand> {
        let requests = self.demand.requests.swap(0, Relaxed);
        let tokens = self.demand.tokens.swap(0, Relaxed);
        let running = self.running.load(Relaxed);
        let concurrency = self.demand.concurrency.swap(running, Relaxed).max(running);
        let used = |window: &OnceLock<Box<Window>>| window.get().map_or(0, |window| window.used(now_us));
        let (used_requests, used_tokens) = (used(&self.requests), used(&self.tokens));
        let has_demand = requests + tokens + concurrency + used_requests + used_tokens > 0;
        let must_report = self.must_report.swap(has_demand, Relaxed);
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        (has_demand || must_report).then(|| wire::ShareDemand {
            limit_id: self.id.to_string(),
            requests,
            tokens,
            concurrency: small(concurrency),
            running: small(running),
            used_requests,
            used_tokens,
        })
    }

    /// Includes the limit in the next report even if unused: the control plane behind a new connection may not know it.
    pub fn announce(&self) {
        self.must_report.store(true, Relaxed);
    }

    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject::try_from(self.subject.load(Relaxed)).unwrap_or_default()
    }

    /// The fleet's number; zero = not limited.
    #[must_use]
    pub fn of_fleet(&self, kind: LimitKind) -> u64 {
        pick(&self.fleet, kind).load(Relaxed)
    }

    /// This process's number. Only meaningful if [`Self::of_fleet`] is not zero.
    #[must_use]
    pub fn of_process(&self, kind: LimitKind) -> u64 {
        let fleet = self.of_fleet(kind);
        if self.has_share.load(Ordering::Acquire) { pick(&self.share, kind).load(Relaxed).min(fleet) } else { fleet.div_ceil(PARTS_WITHOUT_SHARE) }
    }

    #[must_use]
    pub fn remaining(&self, kind: LimitKind, now_us: u64) -> u64 {
        let used = match kind {
            LimitKind::Requests => self.requests.get().map_or(0, |window| window.used(now_us)),
            LimitKind::Tokens => self.tokens.get().map_or(0, |window| window.used(now_us)),
            LimitKind::Concurrency => self.running.load(Relaxed),
        };
        self.of_process(kind).saturating_sub(used)
    }

    /// Time until all of it is available again, if no other call comes.
    #[must_use]
    pub fn whole_in_us(&self, kind: LimitKind, now_us: u64) -> u64 {
        let window = match kind {
            LimitKind::Requests => self.requests.get(),
            LimitKind::Tokens => self.tokens.get(),
            LimitKind::Concurrency => None,
        };
        window.map_or(0, |window| window.empty_in_us(now_us))
    }

    /// Counts one more running call, until [`Self::leave`].
    pub(crate) fn enter(&self) -> Result<(), Exceeded> {
        if self.of_fleet(LimitKind::Concurrency) == 0 {
            // Counted all the same: a new table may set a limit while calls run, and they must be able to leave.
            self.running.fetch_add(1, Relaxed);
            return Ok(());
        }
        let running_max = self.of_process(LimitKind::Concurrency);
        let entered = self.running.fetch_update(Relaxed, Relaxed, |running| (running < running_max).then_some(running + 1));
        let demand = entered.unwrap_or_else(|running| running) + 1;
        if self.demand.concurrency.load(Relaxed) < demand {
            self.demand.concurrency.fetch_max(demand, Relaxed);
        }
        // Nobody knows when a call will end, so this is a guess.
        entered.map(|_| ()).map_err(|_| self.exceeded(LimitKind::Concurrency, 0, 1_000_000))
    }

    pub(crate) fn leave(&self) {
        self.running.fetch_sub(1, Relaxed);
    }

    pub(crate) fn take_request(&self, now_us: u64) -> Result<Option<SlotIndex>, Exceeded> {
        if self.of_fleet(LimitKind::Requests) == 0 {
            return Ok(None);
        }
        self.demand.requests.fetch_add(1, Relaxed);
        let (window, share) = (self.requests.get_or_init(Box::default), self.of_process(LimitKind::Requests));
        window.take(1, share, now_us).map(Some).ok_or_else(|| {
            let remaining = share.saturating_sub(window.used(now_us));
            self.exceeded(LimitKind::Requests, remaining, wait(window, 1, share, now_us))
        })
    }

    /// Returns the slot and how much was taken. A call larger than the whole share takes the share, once nothing else
    /// uses it.
    pub(crate) fn take_tokens(&self, estimate: u64, now_us: u64) -> Result<Option<(SlotIndex, u64)>, Exceeded> {
        if self.of_fleet(LimitKind::Tokens) == 0 {
            return Ok(None);
        }
        self.demand.tokens.fetch_add(estimate, Relaxed);
        let (window, share) = (self.tokens.get_or_init(Box::default), self.of_process(LimitKind::Tokens));
        let tokens = estimate.min(share).max(1);
        window.take(tokens, share, now_us).map(|slot| Some((slot, tokens))).ok_or_else(|| {
            let remaining = share.saturating_sub(window.used(now_us));
            self.exceeded(LimitKind::Tokens, remaining, wait(window, tokens, share, now_us))
        })
    }

    /// Counts what was used already, whether it fits or not.
    pub(crate) fn count(&self, requests: u64, tokens: u64, now_us: u64) {
        if requests > 0 && self.of_fleet(LimitKind::Requests) > 0 {
            self.demand.requests.fetch_add(requests, Relaxed);
            self.requests.get_or_init(Box::default).add(requests, now_us);
        }
        if tokens > 0 && self.of_fleet(LimitKind::Tokens) > 0 {
            self.demand.tokens.fetch_add(tokens, Relaxed);
            self.tokens.get_or_init(Box::default).add(tokens, now_us);
        }
    }

    pub(crate) fn give_back_request(&self, slot: SlotIndex) {
        if let Some(window) = self.requests.get() {
            window.give_back(slot, 1);
        }
    }

    /// Replaces what was reserved in `slot` by what was really used.
    pub(crate) fn correct_tokens(&self, slot: SlotIndex, reserved: u64, used: u64, now_us: u64) {
        let Some(window) = self.tokens.get() else {
            return;
        };
        if used > reserved {
            window.add(used - reserved, now_us);
        } else if used < reserved {
            window.give_back(slot, reserved - used);
        }
    }

    fn exceeded(&self, kind: LimitKind, remaining: u64, retry_after_us: u64) -> Exceeded {
        Exceeded { kind, subject: self.subject(), limit: self.of_fleet(kind), remaining, retry_after_us }
    }
}

/// An empty share may grow with the next response of the control plane, in a second or two.
fn wait(window: &Window, n: u64, share: u64, now_us: u64) -> u64 {
    if share == 0 { 2_000_000 } else { window.room_in_us(n, share, now_us).max(1) }
}

fn pick(numbers: &Numbers, kind: LimitKind) -> &AtomicU64 {
    match kind {
        LimitKind::Requests => &numbers.requests,
        LimitKind::Tokens => &numbers.tokens,
        LimitKind::Concurrency => &numbers.concurrency,
    }
}
