//! How the routes of a model stood when a call looked for one, for those who ask why it went where it did. Who does not ask does not pay.

use crate::engine::Figures;
use crate::group::{Ask, Group, Member, bits};
use crate::standing::{Standing, State, WHOLE};
use crate::strategy::{Candidates, score};

/// One route.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    pub state: State,
    /// It takes no calls at the moment: its breaker is open, it asked for a pause, or its check says it is down.
    pub rests: bool,
    pub has_room: bool,
    /// Of its weight, less than 1 while it starts slowly.
    pub part: f32,
    pub running: u32,
    pub waiting: u32,
    pub first_token_us: Option<f32>,
    pub figures: Option<Figures>,
    /// What the strategy goes by, where the call could take the route: see `docs/reference/explain.md`. `None` = nothing to go by.
    pub score: Option<f64>,
    /// More than its bounded share of the calls runs there (`STRATEGY_PREFIX`).
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
            // The word of its health is enough for one that is well.
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
    /// How each route stands for a call that may take the `open` ones, in their order.
    #[must_use]
    pub fn look(&self, open: u64, ask: &Ask) -> Box<[Look]> {
        let mut looks: Box<[Look]> = self.members().iter().map(|member| Look::at(member, ask.now_ms)).collect();
        for tier in self.tiers() {
            let ready = bits(open & tier).filter(|index| !looks[*index].rests && looks[*index].has_room).fold(0, |set, index| set | 1 << index);
            let candidates = Candidates { members: self.members(), ready, ask };
            for (index, score, is_over_bound) in score(self.strategy, &candidates) {
                (looks[index].score, looks[index].is_over_bound) = (score, is_over_bound);
            }
        }
        looks
    }
}
