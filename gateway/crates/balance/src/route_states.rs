//! The state of a model's routes when a call needed one, to explain why it took the route it did. Computed only on
//! request.

use crate::engine::Figures;
use crate::group::Group;
use crate::health::{Standing, State, WHOLE};
use crate::member::{Ask, Member, bits};
use crate::strategy::{Candidates, score};

/// One route.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub state: State,
    /// It takes no calls at the moment: its breaker is open, it requested a pause, or its health check failed.
    pub rests: bool,
    pub has_room: bool,
    /// The part of its weight that counts, less than 1 during the slow start.
    pub part: f32,
    pub running: u32,
    pub waiting: u32,
    pub first_token_us: Option<f32>,
    pub figures: Option<Figures>,
    /// The value that the strategy compares, if the call could take the route: see `docs/reference/explain.md`. `None`
    /// = there is none.
    pub score: Option<f64>,
    /// It runs more than its bounded share of the calls (`STRATEGY_PREFIX`).
    pub is_over_bound: bool,
}

impl Look {
    #[allow(clippy::cast_precision_loss)] // parts of 1024
    fn at(member: &Member, now_ms: u64) -> Self {
        let standing = member.state.standing(now_ms);
        let (rests, part) = match standing {
            Standing::Usable(part) => (false, part as f32 / WHOLE as f32),
            Standing::Out(_) => (true, 0.0),
        };
        let capacity = &member.state.capacity;
        Self {
            // A fully healthy endpoint needs no second look-up.
            state: if standing == Standing::Usable(WHOLE) { State::Closed } else { member.state.state(now_ms) },
            rests,
            has_room: capacity.has_room(member.running_max),
            part,
            running: capacity.running(),
            waiting: capacity.waiting(),
            first_token_us: member.state.first_token_us(now_ms),
            figures: member.state.figures(now_ms),
            score: None,
            is_over_bound: false,
        }
    }
}

impl Group {
    /// The state of each route, in order, for a call that may take the `open` ones.
    #[must_use]
    pub fn look(&self, open: u64, query: &Ask) -> Box<[Look]> {
        let mut looks: Box<[Look]> = self.members().iter().map(|member| Look::at(member, query.now_ms)).collect();
        for tier in self.tiers() {
            let ready = bits(open & tier).filter(|index| !looks[*index].rests && looks[*index].has_room).fold(0, |set, index| set | 1 << index);
            let candidates = Candidates { members: self.members(), ready, query };
            for (index, score, is_over_bound) in score(self.strategy, &candidates) {
                (looks[index].score, looks[index].is_over_bound) = (score, is_over_bound);
            }
        }
        looks
    }
}
