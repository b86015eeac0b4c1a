//! Counts what was used in the last minute, exactly enough to promise: **no 60 seconds admit more than the limit**.
//!
//! The minute is divided into slots of 2 s. The current slot and the 30 before it are counted; any 60 s lie within
//! those 31. So what is used becomes free between 60 and 62 s later. A whole limit may be used at once, but there is no
//! double burst at the turn of a minute, as with fixed windows and token buckets of a minute.
//!
//! Everything is atomic. `used` is never less than the sum of the counted slots, at any interleaving: it grows before a
//! slot does and shrinks after it. So threads that run concurrently can only see a value that is too strict, and
//! [`Window::take`] cleans up and checks again before it refuses.

use crate::atomics::{AtomicU64, Ordering};

/// Two slots are enough for the model checker to cover every path; otherwise there are 31.
#[cfg(feature = "loom")]
pub const SLOTS: usize = 2;
#[cfg(not(feature = "loom"))]
pub const SLOTS: usize = 31;
pub const SLOT_US: u64 = 2_000_000;
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Slot numbers are kept modulo this: 388 days.
const TAG_MASK: u64 = (1 << (64 - COUNT_BITS)) - 1;

/// The slot in which a reservation was counted.
pub type SlotIndex = u64;

#[derive(Debug)]
#[repr(align(128))]
pub struct Window {
    used: AtomicU64,
    /// The newest slot that any thread has seen.
    head: AtomicU64,
    /// The number of the slot (24 bits) and what was used in it (40 bits).
    slots: [AtomicU64; SLOTS],
}

impl Default for Window {
    fn default() -> Self {
        Self { used: AtomicU64::new(0), head: AtomicU64::new(0), slots: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// `count` fits into its bits.
fn word(slot: u64, count: u64) -> u64 {
    (slot & TAG_MASK) << COUNT_BITS | count
}

/// Whether the slot in `word` is older than `slot`, in modular arithmetic.
fn is_older(word: u64, slot: u64) -> bool {
    let behind = (slot & TAG_MASK).wrapping_sub(word >> COUNT_BITS) & TAG_MASK;
    behind != 0 && behind <= TAG_MASK / 2
}

impl Window {
    /// Counts `n` if it fits under `limit`.
    #[must_use]
    pub fn take(&self, n: u64, limit: u64, now_us: u64) -> Option<SlotIndex> {
        let slot = self.advance(now_us);
        if !self.raise(n, limit) {
            // Another thread may still be clearing slots that have left the window.
            self.clear_until(slot);
            if !self.raise(n, limit) {
                return None;
            }
        }
        Some(self.put(slot, n))
    }

    /// Counts `n` whether it fits or not, because it was used.
    pub fn add(&self, n: u64, now_us: u64) {
        let slot = self.advance(now_us);
        self.used.fetch_add(n, Ordering::AcqRel);
        self.put(slot, n);
    }

    /// Takes back what was counted in slot `number` but was not used. What has left the window meanwhile need not be
    /// taken back.
    pub fn give_back(&self, number: SlotIndex, n: u64) {
        let slot = &self.slots[index(number)];
        let mut seen = slot.load(Ordering::Acquire);
        while seen >> COUNT_BITS == number & TAG_MASK {
            let taken = n.min(seen & COUNT_MASK);
            match slot.compare_exchange(seen, seen - taken, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.used.fetch_sub(taken, Ordering::AcqRel);
                    return;
                }
                Err(now) => seen = now,
            }
        }
    }

    #[must_use]
    pub fn used(&self, now_us: u64) -> u64 {
        self.advance(now_us);
        self.used.load(Ordering::Acquire)
    }

    /// Microseconds until `n` more fit under `limit`, if nothing else is counted.
    #[must_use]
    pub fn room_in_us(&self, n: u64, limit: u64, now_us: u64) -> u64 {
        let head = self.advance(now_us);
        let mut used = self.used.load(Ordering::Acquire);
        let fits = |used: u64| used.saturating_add(n) <= limit;
        if fits(used) {
            return 0;
        }
        let leaves_in_us = |slot: u64| ((slot + SLOTS as u64) * SLOT_US).saturating_sub(now_us);
        for slot in head.saturating_sub(SLOTS as u64 - 1)..head {
            let seen = self.slots[index(slot)].load(Ordering::Acquire);
            if seen >> COUNT_BITS == slot & TAG_MASK {
                used = used.saturating_sub(seen & COUNT_MASK);
            }
            if fits(used) {
                return leaves_in_us(slot);
            }
        }
        leaves_in_us(head)
    }

    /// Microseconds until nothing of what is counted now is counted any more.
    #[must_use]
    pub fn empty_in_us(&self, now_us: u64) -> u64 {
        let head = self.advance(now_us);
        let oldest = head.saturating_sub(SLOTS as u64 - 1);
        let counts = |slot: &u64| {
            let seen = self.slots[index(*slot)].load(Ordering::Acquire);
            seen >> COUNT_BITS == slot & TAG_MASK && seen & COUNT_MASK > 0
        };
        (oldest..=head).rev().find(counts).map_or(0, |slot| ((slot + SLOTS as u64) * SLOT_US).saturating_sub(now_us))
    }

    fn raise(&self, n: u64, limit: u64) -> bool {
        let fits = |used: u64| used.checked_add(n).filter(|sum| *sum <= limit);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// The slot of `now_us`, or a newer one that another thread has seen. The first thread clears what has left the
    /// window.
    fn advance(&self, now_us: u64) -> u64 {
        let slot = now_us / SLOT_US;
        let head = self.head.load(Ordering::Acquire);
        if slot <= head {
            return head;
        }
        let before = self.head.fetch_max(slot, Ordering::AcqRel);
        if before < slot {
            self.clear_until(slot);
        }
        slot.max(before)
    }

    /// Reuses the words of slots that have left the window when `head` is the newest.
    fn clear_until(&self, head: u64) {
        for slot in head.saturating_sub(SLOTS as u64 - 1)..=head {
            let held = &self.slots[index(slot)];
            let mut seen = held.load(Ordering::Acquire);
            while is_older(seen, slot) {
                match held.compare_exchange(seen, word(slot, 0), Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        self.used.fetch_sub(seen & COUNT_MASK, Ordering::AcqRel);
                        break;
                    }
                    Err(now) => seen = now,
                }
            }
        }
    }

    fn put(&self, mut slot: u64, n: u64) -> SlotIndex {
        loop {
            let target = &self.slots[index(slot)];
            let seen = target.load(Ordering::Acquire);
            let (held, gone) = if seen >> COUNT_BITS == slot & TAG_MASK {
                (seen & COUNT_MASK, 0)
            } else if is_older(seen, slot) {
                (0, seen & COUNT_MASK)
            } else {
                // This thread was suspended for a whole window, so it counts in the current slot.
                slot = self.head.load(Ordering::Acquire).max(slot + 1);
                continue;
            };
            // No call uses 10^12 tokens in two seconds, but an upstream may report it. What a slot cannot hold must not
            // stay in `used`.
            let kept = n.min(COUNT_MASK - held);
            if target.compare_exchange(seen, word(slot, held + kept), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                if gone + (n - kept) > 0 {
                    self.used.fetch_sub(gone + (n - kept), Ordering::AcqRel);
                }
                return slot;
            }
        }
    }
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}
