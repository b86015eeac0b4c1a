//! A fair queue by tokens: the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI
//! 2024), within bands of priority.
//!
//! Each flow (a tenant) has a counter of the tokens it was served; the waiting flow with the smallest counter is next.
//! A flow that comes back after a pause is lifted to the level of the others, so that a pause earns no credit. The
//! tokens of a call are estimated when it starts and corrected when they are known.

use std::collections::{BTreeMap, HashMap};

/// Strictly in this order.
pub const BANDS: usize = 3;
/// Beyond this number, the counters of flows that are not waiting are dropped.
const FLOWS_MAX: usize = 2_048;

pub type FlowId = u64;

/// The position of a waiting call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePosition {
    pub band: usize,
    pub flow: FlowId,
    number: u64,
}

/// The estimate that was charged to a flow, to be corrected when the usage is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCharge {
    pub band: usize,
    pub flow: FlowId,
    pub tokens: u64,
}

/// What a waiting call does when it is its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Takes,
    /// Its caller is gone.
    Left,
    /// It cannot use what is free, so it keeps waiting.
    Passes,
}

#[derive(Debug)]
struct Waiting<T> {
    tokens: u64,
    item: T,
}

#[derive(Debug)]
struct Flow<T> {
    served: u64,
    waiting: BTreeMap<u64, Waiting<T>>,
}

#[derive(Debug)]
struct Band<T> {
    flows: HashMap<FlowId, Flow<T>, foldhash::fast::RandomState>,
    /// The counter of the flow that was served last: newcomers begin here.
    level: u64,
}

#[derive(Debug)]
pub struct FairQueue<T> {
    bands: [Band<T>; BANDS],
    len: usize,
    len_max: usize,
    next: u64,
}

impl<T> FairQueue<T> {
    #[must_use]
    pub fn new(len_max: usize) -> Self {
        let bands = std::array::from_fn(|_| Band { flows: HashMap::default(), level: 0 });
        Self { bands, len: 0, len_max, next: 0 }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Joins the end of its flow. If the queue is full, the last of the longest flow is evicted and returned, unless
    /// that flow is the newcomer's own.
    ///
    /// # Errors
    /// Returns `item` if there is no room for it.
    pub fn join(&mut self, band: usize, flow: FlowId, tokens: u64, item: T) -> Result<(QueuePosition, Option<T>), T> {
        let band = band.min(BANDS - 1);
        let mut evicted = None;
        if self.len >= self.len_max {
            let Some(position) = self.eviction_candidate(band, flow) else {
                return Err(item);
            };
            evicted = self.leave(position);
        }
        let number = self.next;
        self.next += 1;
        self.band(band).join(flow, number, Waiting { tokens, item });
        self.len += 1;
        Ok((QueuePosition { band, flow, number }, evicted))
    }

    fn band(&mut self, band: usize) -> &mut Band<T> {
        &mut self.bands[band]
    }

    /// The last of the longest flow, starting with the least urgent band. Only flows that are longer than the
    /// newcomer's, or less urgent, count.
    fn eviction_candidate(&self, band: usize, flow: FlowId) -> Option<QueuePosition> {
        let own = self.bands[band].flows.get(&flow).map_or(0, |flow| flow.waiting.len());
        (band..BANDS).rev().find_map(|other| {
            let least = if other == band { own + 1 } else { 0 };
            let flows = self.bands[other].flows.iter().filter(|(_, flow)| flow.waiting.len() > least);
            let (longest, flow) = flows.max_by_key(|(_, flow)| flow.waiting.len())?;
            let number = *flow.waiting.last_key_value()?.0;
            Some(QueuePosition { band: other, flow: *longest, number })
        })
    }

    /// Leaves the queue; `None` = it has left or was served already.
    pub fn leave(&mut self, position: QueuePosition) -> Option<T> {
        let flow = self.bands[position.band].flows.get_mut(&position.flow)?;
        let left = flow.waiting.remove(&position.number)?;
        self.len -= 1;
        Some(left.item)
    }

    /// Removes the first waiting call that takes its turn. `None` = no call does.
    pub fn next(&mut self, mut turn: impl FnMut(&T) -> Turn) -> Option<(TokenCharge, T)> {
        for band in 0..BANDS {
            let (taken, left) = self.bands[band].next(&mut turn);
            self.len -= left + usize::from(taken.is_some());
            if let Some((flow, waiting)) = taken {
                return Some((TokenCharge { band, flow, tokens: waiting.tokens }, waiting.item));
            }
        }
        None
    }

    /// Replaces the estimate by what the call really used.
    pub fn correct(&mut self, charge: TokenCharge, tokens: u64) {
        let band = &mut self.bands[charge.band];
        let level = band.level;
        let flow = band.flows.entry(charge.flow).or_insert_with(|| Flow { served: level, waiting: BTreeMap::new() });
        flow.served = (flow.served + tokens).saturating_sub(charge.tokens);
    }
}

impl<T> Band<T> {
    fn join(&mut self, flow: FlowId, number: u64, waiting: Waiting<T>) {
        let lowest = self.flows.values().filter(|flow| !flow.waiting.is_empty()).map(|flow| flow.served).min();
        let level = lowest.unwrap_or(self.level);
        let flow = self.flows.entry(flow).or_insert_with(|| Flow { served: 0, waiting: BTreeMap::new() });
        if flow.waiting.is_empty() {
            flow.served = flow.served.max(level);
        }
        flow.waiting.insert(number, waiting);
        self.forget();
    }

    /// The call that takes its turn, and how many had left.
    fn next(&mut self, turn: &mut impl FnMut(&T) -> Turn) -> (Option<(FlowId, Waiting<T>)>, usize) {
        let mut left = 0;
        // Between equal counters the earliest arrival decides.
        let mut order: Vec<(u64, u64, FlowId)> =
            self.flows.iter().filter_map(|(id, flow)| Some((flow.served, *flow.waiting.first_key_value()?.0, *id))).collect();
        order.sort_unstable();
        for (served, _, id) in order {
            let Some(flow) = self.flows.get_mut(&id) else {
                continue;
            };
            while let Some(first) = flow.waiting.first_entry() {
                match turn(&first.get().item) {
                    Turn::Takes => {
                        let waiting = first.remove();
                        flow.served += waiting.tokens;
                        self.level = self.level.max(served);
                        return (Some((id, waiting)), left);
                    }
                    Turn::Left => {
                        first.remove();
                        left += 1;
                    }
                    Turn::Passes => break,
                }
            }
        }
        (None, left)
    }

    fn forget(&mut self) {
        if self.flows.len() <= FLOWS_MAX {
            return;
        }
        let level = self.level;
        self.flows.retain(|_, flow| !flow.waiting.is_empty() || flow.served > level);
        if self.flows.len() > FLOWS_MAX {
            self.flows.retain(|_, flow| !flow.waiting.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.next(|_| Turn::Takes).map(|(_, item)| item)).collect()
    }

    #[test]
    fn flows_share_by_tokens_not_by_turns() {
        let mut queue = FairQueue::new(100);
        (0..4).for_each(|_| assert!(queue.join(1, 1, 300, "hog").is_ok()));
        (0..4).for_each(|_| assert!(queue.join(1, 2, 100, "small").is_ok()));
        assert_eq!(drain(&mut queue), ["hog", "small", "small", "small", "hog", "small", "hog", "hog"]);
    }

    #[test]
    fn bands_come_before_shares_and_silence_earns_nothing() {
        let mut queue = FairQueue::new(100);
        queue.join(2, 9, 1, "low").unwrap();
        (0..50).for_each(|_| assert!(queue.join(1, 1, 10, "old").is_ok()));
        (0..40).for_each(|_| assert!(queue.next(|_| Turn::Takes).is_some()));
        (0..3).for_each(|_| assert!(queue.join(1, 2, 10, "late").is_ok()));
        queue.join(0, 3, 10, "high").unwrap();
        let rest = drain(&mut queue);
        assert_eq!(rest[..5], ["high", "old", "late", "old", "late"], "the latecomer has no credit of forty turns");
        assert_eq!(rest.last(), Some(&"low"));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_loses_the_last_of_the_longest_flow() {
        let mut queue = FairQueue::new(3);
        let hog: Vec<_> = (0..3).map(|_| queue.join(1, 1, 10, "hog").unwrap().0).collect();
        assert_eq!(queue.join(1, 1, 10, "hog"), Err("hog"));
        let (_, evicted) = queue.join(1, 2, 10, "small").unwrap();
        assert_eq!(evicted, Some("hog"));
        assert_eq!(queue.leave(hog[2]), None, "it was the last of them");
        assert_eq!(queue.join(1, 2, 10, "small"), Err("small"), "two and one: nobody has more than the newcomer would");
        assert_eq!(queue.join(0, 2, 10, "urgent").unwrap().1, Some("hog"));
        assert_eq!(drain(&mut queue), ["urgent", "hog", "small"]);
    }

    #[test]
    fn who_left_is_passed_over_and_who_cannot_waits_on() {
        let mut queue = FairQueue::new(9);
        queue.join(1, 1, 10, "gone").unwrap();
        let position = queue.join(1, 1, 10, "left").unwrap().0;
        queue.join(1, 1, 10, "here").unwrap();
        queue.join(1, 2, 10, "small").unwrap();
        assert_eq!(queue.leave(position), Some("left"));
        let turn = |item: &&str| match *item {
            "gone" => Turn::Left,
            "here" => Turn::Passes,
            _ => Turn::Takes,
        };
        assert_eq!(queue.next(turn).map(|(charge, item)| (charge.flow, item)), Some((2, "small")));
        assert_eq!((queue.len(), drain(&mut queue)), (1, vec!["here"]));
    }

    #[test]
    fn the_true_use_corrects_the_estimate() {
        let mut queue = FairQueue::new(100);
        (0..6).for_each(|_| assert!(queue.join(1, 1, 10, "liar").is_ok()));
        (0..6).for_each(|_| assert!(queue.join(1, 2, 10, "honest").is_ok()));
        let (charge, item) = queue.next(|_| Turn::Takes).unwrap();
        assert_eq!(item, "liar");
        queue.correct(charge, 50);
        let order: Vec<_> = (0..5).map(|_| queue.next(|_| Turn::Takes).unwrap().1).collect();
        assert_eq!(order, ["honest"; 5]);
    }
}
