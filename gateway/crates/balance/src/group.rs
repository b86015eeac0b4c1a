//! The routes of one model, and which of them a call takes.

use crate::budget::Budget;
use crate::endpoint::{Begun, EndpointState};
use crate::standing::Standing;
use crate::strategy::{self, Candidates};
use std::sync::Arc;

/// Routes of one model that are looked at.
pub const MEMBERS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    Weighted,
    LeastOutstanding,
    Latency,
    Cost,
    Session,
    Prefix,
    Engine,
}

/// One route.
#[derive(Debug)]
pub struct Member {
    pub state: Arc<EndpointState>,
    pub weight: u32,
    pub tier: u32,
    /// 0 = any number.
    pub running_max: u32,
    pub input_cost: u64,
    pub output_cost: u64,
}

#[derive(Debug)]
pub struct Group {
    pub strategy: Strategy,
    pub budget: Arc<Budget>,
    members: Box<[Member]>,
    /// Bits of the members of each tier, lowest first.
    tiers: Box<[u64]>,
}

/// What is known of the call that wants a route.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    pub now_ms: u64,
    pub random: u64,
    /// Hash of the session or of the prompt's head, where the strategy asks for one.
    pub affinity: Option<u64>,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Its place is entered: `leave` the capacity when the call is over, and judge the endpoint.
    Taken { index: usize, trial: bool },
    /// These (one bit each) could take it if they were not full.
    Full(u64),
    /// There is no route left.
    None,
}

/// The numbers of the bits that are set.
pub fn bits(mut set: u64) -> impl Iterator<Item = usize> + Clone {
    std::iter::from_fn(move || {
        let next = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(next)
    })
}

impl Group {
    #[must_use]
    pub fn new(strategy: Strategy, budget: Arc<Budget>, members: Vec<Member>) -> Self {
        let mut members = members;
        members.truncate(MEMBERS_MAX);
        let mut numbers: Vec<u32> = members.iter().map(|member| member.tier).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let of_tier = |tier: &u32| members.iter().enumerate().filter(|(_, m)| m.tier == *tier).fold(0, |set, (i, _)| set | 1 << i);
        let tiers = numbers.iter().map(of_tier).collect();
        Self { strategy, budget, members: members.into(), tiers }
    }

    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Bits of the members of each tier, lowest first.
    pub(crate) fn tiers(&self) -> &[u64] {
        &self.tiers
    }

    /// Takes one of the `open` routes: of the lowest tier that has one with room. When all are ill, the least ill.
    #[must_use]
    pub fn pick(&self, open: u64, ask: &Ask) -> Pick {
        let mut full = 0;
        for tier in &self.tiers {
            match self.pick_of(open & tier, ask) {
                Pick::Full(some) => full |= some,
                Pick::None => {}
                taken @ Pick::Taken { .. } => return taken,
            }
        }
        if full != 0 { Pick::Full(full) } else { self.least_ill(open, ask.now_ms) }
    }

    fn pick_of(&self, open: u64, ask: &Ask) -> Pick {
        let (mut ready, mut full) = (0_u64, 0_u64);
        for index in bits(open) {
            let member = &self.members[index];
            match member.state.standing(ask.now_ms) {
                Standing::Out(_) => {}
                Standing::Usable(_) if member.state.capacity.has_room(member.running_max) => ready |= 1 << index,
                Standing::Usable(_) => full |= 1 << index,
            }
        }
        while ready != 0 {
            let index = if ready.is_power_of_two() { ready.trailing_zeros() as usize } else { self.choose(ready, ask) };
            let member = &self.members[index];
            match member.state.begin(member.running_max, ask.now_ms) {
                Begun::Yes { trial } => return Pick::Taken { index, trial },
                Begun::Full => full |= 1 << index,
                Begun::Out => {}
            }
            // Another thread was faster.
            ready &= !(1 << index);
        }
        if full != 0 { Pick::Full(full) } else { Pick::None }
    }

    fn choose(&self, ready: u64, ask: &Ask) -> usize {
        let candidates = Candidates { members: &self.members, ready, ask };
        match self.strategy {
            Strategy::Weighted => strategy::weighted(&candidates),
            Strategy::LeastOutstanding => strategy::least_outstanding(&candidates),
            Strategy::Latency => strategy::latency(&candidates),
            Strategy::Cost => strategy::cost(&candidates),
            Strategy::Session => strategy::session(&candidates),
            Strategy::Prefix => strategy::prefix(&candidates),
            Strategy::Engine => strategy::engine(&candidates),
        }
    }

    /// A breaker that opened on all of them would make an outage out of a fault: somebody is tried.
    fn least_ill(&self, open: u64, now_ms: u64) -> Pick {
        let until = |index: &usize| match self.members[*index].state.standing(now_ms) {
            Standing::Out(until) => until,
            Standing::Usable(_) => 0,
        };
        let Some(index) = bits(open & self.tiers.iter().fold(0, |all, tier| all | tier)).min_by_key(until) else {
            return Pick::None;
        };
        let member = &self.members[index];
        if member.state.capacity.enter(member.running_max) { Pick::Taken { index, trial: false } } else { Pick::Full(1 << index) }
    }
}
