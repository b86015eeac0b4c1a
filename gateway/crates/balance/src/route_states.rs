//! The state of a model's routes when a call needed one, to explain why it took the route it did. Computed only on
//! request.

use crate::engine::EngineLoad;
use crate::group::Group;
use crate::health::{Availability, HealthState, WHOLE};
use crate::member::{Member, RouteQuery, bits};
use crate::strategy::{Candidates, score};

/// One route.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouteState {
    pub state: HealthState,
    /// It takes no calls at the moment: its breaker is open, it requested a pause, or its health check failed.
    pub is_out: bool,
    pub has_room: bool,
    /// The part of its weight that counts, less than 1 during the slow start.
    pub weight_part: f32,
    pub running: u32,
    pub waiting: u32,
    pub first_token_us: Option<f32>,
    pub engine_load: Option<EngineLoad>,
    /// The value that the strategy compares, if the call could take the route: see `docs/reference/explain.md`. `None`
    /// = there is none.
    pub score: Option<f64>,
    /// It runs more than its bounded share of the calls (`STRATEGY_PREFIX`).
    pub is_over_bound: bool,
}

impl RouteState {
    #[allow(clippy::cast_precision_loss)] // parts of 1024
    fn at(member: &Member, now_ms: u64) -> Self {
        let availability = member.state.availability(now_ms);
        let (is_out, weight_part) = match availability {
            Availability::Usable(part) => (false, part as f32 / WHOLE as f32),
            Availability::Out(_) => (true, 0.0),
        };
        let capacity = &member.state.capacity;
        Self {
            // A fully healthy endpoint needs no second look-up.
            state: if availability == Availability::Usable(WHOLE) { HealthState::Closed } else { member.state.health_state(now_ms) },
            is_out,
            has_room: capacity.has_room(member.running_max),
            weight_part,
            running: capacity.running(),
            waiting: capacity.waiting(),
            first_token_us: member.state.first_token_us(now_ms),
            engine_load: member.state.engine_load(now_ms),
            score: None,
            is_over_bound: false,
        }
    }
}

impl Group {
    /// The state of each route, in order, for a call that may take the `open` ones.
    #[must_use]
    pub fn route_states(&self, open: u64, query: &RouteQuery) -> Box<[RouteState]> {
        let mut states: Box<[RouteState]> = self.members().iter().map(|member| RouteState::at(member, query.now_ms)).collect();
        for tier in self.tiers() {
            let ready = bits(open & tier).filter(|index| !states[*index].is_out && states[*index].has_room).fold(0, |set, index| set | 1 << index);
            let candidates = Candidates { members: self.members(), ready, query };
            for (index, score, is_over_bound) in score(self.strategy, &candidates) {
                (states[index].score, states[index].is_over_bound) = (score, is_over_bound);
            }
        }
        states
    }
}
