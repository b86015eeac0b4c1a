//! What was used in the last minute, exactly enough to promise: **in no 60 seconds is more admitted than the limit**.
//!
//! The minute is cut into slots of 2 s. Counted are the slot that is being filled and the 30 before it; any 60 s lie inside those 31, so
//! what is used comes free between 60 and 62 s later. A whole limit may be used at once; there is no doubled burst at the turn of a minute,
//! as fixed windows and buckets of a minute's size have it.
//!
//! All is atomic. `used` is never less than the sum of the counted slots, at any interleaving: it grows before a slot does and shrinks
//! after, so the promise holds while threads meet; what they see in between may only be too strict, and [`Window::take`] cleans up and looks
//! again before it refuses.

use crate::sync::{AtomicU64, Ordering};

/// Two slots are enough for the model checker to meet every path; real ones are 31.
#[cfg(feature = "loom")]
pub const SLOTS: usize = 2;
#[cfg(not(feature = "loom"))]
pub const SLOTS: usize = 31;
pub const SLOT_US: u64 = 2_000_000;
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Slot numbers are kept modulo this: 388 days.
const TAG_MASK: u64 = (1 << (64 - COUNT_BITS)) - 1;

/// Slot number: where a reservation was counted.
pub type Place = u64;

#[derive(Debug)]
#[repr(align(128))]
pub struct Window {
    used: AtomicU64,
    /// The newest slot that anybody has seen.
    head: AtomicU64,
    /// Number of the slot (24 bits), what was used in it (40 bits).
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

/// Whether the slot in `word` is older than `slot`, in the arithmetic of the circle.
fn is_older(word: u64, slot: u64) -> bool {
    let behind = (slot & TAG_MASK).wrapping_sub(word >> COUNT_BITS) & TAG_MASK;
    behind != 0 && behind <= TAG_MASK / 2
}

impl Window {
    /// Counts `n` if it fits under `limit`.
    #[must_use]
    pub fn take(&self, n: u64, limit: u64, now_us: u64) -> Option<Place> {
        let slot = self.advance(now_us);
        if !self.raise(n, limit) {
            // Another thread may still be clearing what has left the window.
            self.clear_until(slot);
            if !self.raise(n, limit) {
                return None;
            }
        }
        Some(self.put(slot, n))
    }

    /// Counts `n` whether it fits or not: it has been used.
    pub fn add(&self, n: u64, now_us: u64) {
        let slot = self.advance(now_us);
        self.used.fetch_add(n, Ordering::AcqRel);
        self.put(slot, n);
    }

    /// Takes back what was counted at `place` and was not used after all. What has left the window meanwhile needs no taking back.
    pub fn give_back(&self, place: Place, n: u64) {
        let slot = &self.slots[index(place)];
        let mut seen = slot.load(Ordering::Acquire);
        while seen >> COUNT_BITS == place & TAG_MASK {
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

    /// Microseconds until `n` more fit under `limit`, if nothing else comes.
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

    /// The slot of `now_us`, or a newer one that somebody has seen; whoever comes first clears what has left the window.
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

    /// Makes every place hold one of the slots that count while `head` is the newest.
    fn clear_until(&self, head: u64) {
        for slot in head.saturating_sub(SLOTS as u64 - 1)..=head {
            let place = &self.slots[index(slot)];
            let mut seen = place.load(Ordering::Acquire);
            while is_older(seen, slot) {
                match place.compare_exchange(seen, word(slot, 0), Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => {
                        self.used.fetch_sub(seen & COUNT_MASK, Ordering::AcqRel);
                        break;
                    }
                    Err(now) => seen = now,
                }
            }
        }
    }

    fn put(&self, mut slot: u64, n: u64) -> Place {
        loop {
            let place = &self.slots[index(slot)];
            let seen = place.load(Ordering::Acquire);
            let (held, gone) = if seen >> COUNT_BITS == slot & TAG_MASK {
                (seen & COUNT_MASK, 0)
            } else if is_older(seen, slot) {
                (0, seen & COUNT_MASK)
            } else {
                // This thread slept through a whole window: it counts now.
                slot = self.head.load(Ordering::Acquire).max(slot + 1);
                continue;
            };
            // Nobody uses 10^12 tokens in two seconds, but an upstream may say so: what a slot cannot hold must not stay in `used` for ever.
            let kept = n.min(COUNT_MASK - held);
            if place.compare_exchange(seen, word(slot, held + kept), Ordering::AcqRel, Ordering::Acquire).is_ok() {
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
