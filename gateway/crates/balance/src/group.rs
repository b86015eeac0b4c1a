//! The routes of one model, and which of them a call takes.

use crate::endpoint::StartResult;
use crate::health::Availability;
use crate::member::{MEMBERS_MAX, Member, RouteQuery, bits};
use crate::retry_allowance::RetryAllowance;
use crate::strategy::{Candidates, Strategy, choose};
use std::sync::Arc;

#[derive(Debug)]
pub struct Group {
    pub strategy: Strategy,
    pub retry_allowance: Arc<RetryAllowance>,
    members: Box<[Member]>,
    /// Bits of the members of each tier, lowest first.
    tiers: Box<[u64]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The call has entered the endpoint: `leave` its capacity when the call is over, and record the outcome.
    Taken { index: usize, trial: bool },
    /// These routes (one bit each) could take the call if they were not full.
    Full(u64),
    /// There is no route left.
    None,
}

impl Group {
    #[must_use]
    pub fn new(strategy: Strategy, retry_allowance: Arc<RetryAllowance>, members: Vec<Member>) -> Self {
        let mut members = members;
        members.truncate(MEMBERS_MAX);
        let mut numbers: Vec<u32> = members.iter().map(|member| member.tier).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let of_tier = |tier: &u32| members.iter().enumerate().filter(|(_, m)| m.tier == *tier).fold(0, |set, (i, _)| set | 1 << i);
        let tiers = numbers.iter().map(of_tier).collect();
        Self { strategy, retry_allowance, members: members.into(), tiers }
    }

    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Bits of the members of each tier, lowest first.
    pub(crate) fn tiers(&self) -> &[u64] {
        &self.tiers
    }

    /// Takes one of the `open` routes, from the lowest tier that has one with room. If all are unhealthy, takes the one
    /// that recovers first.
    #[must_use]
    pub fn pick(&self, open: u64, query: &RouteQuery) -> Pick {
        let mut full = 0;
        for tier in &self.tiers {
            match self.pick_from_tier(open & tier, query) {
                Pick::Full(some) => full |= some,
                Pick::None => {}
                taken @ Pick::Taken { .. } => return taken,
            }
        }
        if full != 0 { Pick::Full(full) } else { self.first_to_recover(open, query.now_ms) }
    }

    fn pick_from_tier(&self, open: u64, query: &RouteQuery) -> Pick {
        let (mut ready, mut full) = (0_u64, 0_u64);
        for index in bits(open) {
            let member = &self.members[index];
            match member.state.availability(query.now_ms) {
                Availability::Out(_) => {}
                Availability::Usable(_) if member.state.capacity.has_room(member.running_max) => ready |= 1 << index,
                Availability::Usable(_) => full |= 1 << index,
            }
        }
        while ready != 0 {
            let index = if ready.is_power_of_two() {
                ready.trailing_zeros() as usize
            } else {
                choose(self.strategy, &Candidates { members: &self.members, ready, query })
            };
            let member = &self.members[index];
            match member.state.start(member.running_max, query.now_ms) {
                StartResult::Yes { trial } => return Pick::Taken { index, trial },
                StartResult::Full => full |= 1 << index,
                StartResult::Out => {}
            }
            // Another thread was faster.
            ready &= !(1 << index);
        }
        if full != 0 { Pick::Full(full) } else { Pick::None }
    }

    /// Breakers that opened on all routes would turn a fault into an outage, so one is tried all the same.
    fn first_to_recover(&self, open: u64, now_ms: u64) -> Pick {
        let until = |index: &usize| match self.members[*index].state.availability(now_ms) {
            Availability::Out(until) => until,
            Availability::Usable(_) => 0,
        };
        let Some(index) = bits(open & self.tiers.iter().fold(0, |all, tier| all | tier)).min_by_key(until) else {
            return Pick::None;
        };
        let member = &self.members[index];
        if member.state.capacity.enter(member.running_max) { Pick::Taken { index, trial: false } } else { Pick::Full(1 << index) }
    }
}
