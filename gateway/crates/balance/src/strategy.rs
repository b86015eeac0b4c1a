//! One function for each strategy: which of the ready routes to take. All of them are usable and have room, and there
//! are at least two.

use crate::hash::mix;
use crate::health::{Availability, WHOLE};
use crate::member::{Member, RouteQuery, bits};

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

pub(crate) struct Candidates<'a> {
    pub members: &'a [Member],
    pub ready: u64,
    pub query: &'a RouteQuery,
}

/// The index of the route to take.
pub(crate) fn choose(strategy: Strategy, candidates: &Candidates<'_>) -> usize {
    match strategy {
        Strategy::Weighted => weighted(candidates),
        Strategy::LeastOutstanding => least_outstanding(candidates),
        Strategy::Latency => latency(candidates),
        Strategy::Cost => cost(candidates),
        Strategy::Session => session(candidates),
        Strategy::Prefix => prefix(candidates),
        Strategy::Engine => engine(candidates),
    }
}

/// No endpoint holds more than this times its share of the running calls (`STRATEGY_PREFIX`; Mirrokni et al.,
/// "Consistent Hashing with Bounded Loads", 2018).
pub const BOUND: f64 = 1.25;

impl Candidates<'_> {
    fn each(&self) -> impl Iterator<Item = (usize, &Member)> + Clone {
        bits(self.ready).map(|index| (index, &self.members[index]))
    }

    fn part(&self, member: &Member) -> u64 {
        match member.state.availability(self.query.now_ms) {
            Availability::Usable(part) => part,
            Availability::Out(_) => 1,
        }
    }

    /// Its weight, reduced during the slow start.
    fn weight(&self, member: &Member) -> u64 {
        u64::from(member.weight) * self.part(member)
    }

    /// The route with the lowest value; chance decides between equal ones.
    fn lowest(&self, value: impl Fn(&Member) -> f64) -> usize {
        let (mut best, mut best_value, mut equals) = (0, f64::INFINITY, 0);
        for (index, member) in self.each() {
            let own = value(member);
            if own < best_value || equals == 0 {
                (best, best_value, equals) = (index, own, 1);
            } else if own <= best_value {
                equals += 1;
                if mix(self.query.random ^ equals).is_multiple_of(equals) {
                    best = index;
                }
            }
        }
        best
    }

    #[allow(clippy::cast_precision_loss)] // weights are small
    fn running_by_weight(&self, member: &Member) -> f64 {
        (f64::from(member.state.capacity.running()) + 1.0) / self.weight(member).max(1) as f64
    }
}

fn weighted(candidates: &Candidates<'_>) -> usize {
    let total: u64 = candidates.each().map(|(_, member)| candidates.weight(member)).sum();
    let mut ticket = candidates.query.random % total.max(1);
    for (index, member) in candidates.each() {
        let weight = candidates.weight(member);
        if ticket < weight {
            return index;
        }
        ticket -= weight;
    }
    // Weights fell between the two passes because a breaker opened. The last route is as good as any.
    63 - candidates.ready.leading_zeros() as usize
}

fn least_outstanding(candidates: &Candidates<'_>) -> usize {
    candidates.lowest(|member| candidates.running_by_weight(member))
}

/// Power of two choices: the better of two random routes.
fn latency(candidates: &Candidates<'_>) -> usize {
    let count = u64::from(candidates.ready.count_ones());
    let random = candidates.query.random;
    let first = random % count;
    let second = (first + 1 + (random >> 32) % (count - 1)) % count;
    let of = |nth: u64| bits(candidates.ready).nth(usize::try_from(nth).unwrap_or(0)).unwrap_or(0);
    let (first, second) = (of(first), of(second));
    let [one, two] = [first, second].map(|index| &candidates.members[index].state);
    let means = [one, two].map(|state| state.first_token_us(candidates.query.now_ms));
    // A route without measurements counts like the other one, so that only their calls decide.
    let [mean_one, mean_two] = match means {
        [None, None] => [1.0, 1.0],
        [known, other] => [known.or(other).unwrap_or(1.0), other.or(known).unwrap_or(1.0)],
    };
    let cost = |index: usize, mean: f32| f64::from(mean) * candidates.running_by_weight(&candidates.members[index]);
    if cost(first, mean_one) <= cost(second, mean_two) { first } else { second }
}

/// The cheapest route for this call; between equal ones the less busy.
fn cost(candidates: &Candidates<'_>) -> usize {
    let price = |member: &Member| price(candidates.query, member);
    let least = candidates.each().map(|(_, member)| price(member)).min().unwrap_or(0);
    let cheapest = candidates.each().filter(|(_, member)| price(member) == least).fold(0, |set, (index, _)| set | 1 << index);
    least_outstanding(&Candidates { ready: cheapest, ..*candidates })
}

/// In millionths of the price's nano-units.
fn price(query: &RouteQuery, member: &Member) -> u128 {
    u128::from(member.input_cost) * u128::from(query.input_tokens.max(1)) + u128::from(member.output_cost) * u128::from(query.output_tokens.max(1))
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998): each session belongs to the member with the best score. If a
/// member goes, only its own sessions move.
fn session(candidates: &Candidates<'_>) -> usize {
    let Some(affinity) = candidates.query.affinity else {
        return weighted(candidates);
    };
    candidates.lowest(|member| distance(candidates, member, affinity))
}

/// As [`session`], but a member with more than its bounded share is skipped, so that one popular prompt cannot overload
/// a member.
fn prefix(candidates: &Candidates<'_>) -> usize {
    let Some(affinity) = candidates.query.affinity else {
        return least_outstanding(candidates);
    };
    let has_room = bound(candidates);
    let room = candidates.each().filter(|(_, member)| has_room(member)).fold(0, |set, (index, _)| set | 1 << index);
    // Never empty by the counts of one moment, but other threads may change them.
    let ready = if room == 0 { candidates.ready } else { room };
    Candidates { ready, ..*candidates }.lowest(|member| distance(candidates, member, affinity))
}

/// Whether a member has room within its bounded share.
fn bound(candidates: &Candidates<'_>) -> impl Fn(&Member) -> bool {
    let (running, weights) = candidates
        .each()
        .fold((1_u64, 0_u64), |(running, weights), (_, m)| (running + u64::from(m.state.capacity.running()), weights + candidates.weight(m)));
    #[allow(clippy::cast_precision_loss)] // numbers of calls
    move |member: &Member| {
        let share = running as f64 * candidates.weight(member) as f64 / weights.max(1) as f64;
        f64::from(member.state.capacity.running()) < (BOUND * share).ceil()
    }
}

/// `-ln(u) / weight` is exponentially distributed: each member has the lowest value with a probability equal to its
/// share of the weights.
#[allow(clippy::cast_precision_loss)] // 53 bits of a hash are plenty
fn distance(candidates: &Candidates<'_>, member: &Member, affinity: u64) -> f64 {
    let score = mix(affinity ^ member.state.hash);
    // During the slow start its sessions come back one by one, always the same ones first.
    let part = candidates.part(member);
    let away = part < WHOLE && mix(score) % WHOLE >= part;
    let unit = ((score >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    -unit.ln() / f64::from(member.weight.max(1)) + if away { 1e6 } else { 0.0 }
}

#[allow(clippy::cast_precision_loss)] // weights are small
fn engine(candidates: &Candidates<'_>) -> usize {
    candidates.lowest(|member| load(candidates, member))
}

#[allow(clippy::cast_precision_loss)] // weights are small
fn load(candidates: &Candidates<'_>, member: &Member) -> f64 {
    member.state.load(candidates.query.now_ms) / candidates.weight(member).max(1) as f64
}

/// The value by which the strategy compares each candidate, and whether the bound excludes it. For explaining a choice
/// afterwards.
pub(crate) fn score(strategy: Strategy, candidates: &Candidates<'_>) -> impl Iterator<Item = (usize, Option<f64>, bool)> {
    let total: u64 = candidates.each().map(|(_, member)| candidates.weight(member)).sum();
    let (has_room, query) = (bound(candidates), candidates.query);
    #[allow(clippy::cast_precision_loss)] // shares and prices for people to read
    let own = move |member: &Member| match (strategy, query.affinity) {
        (Strategy::Weighted, _) | (Strategy::Session, None) => Some(candidates.weight(member) as f64 / total.max(1) as f64),
        (Strategy::LeastOutstanding, _) | (Strategy::Prefix, None) => Some(candidates.running_by_weight(member) * WHOLE as f64),
        (Strategy::Latency, _) => {
            member.state.first_token_us(query.now_ms).map(|mean| f64::from(mean) * candidates.running_by_weight(member) * WHOLE as f64)
        }
        (Strategy::Cost, _) => Some(price(query, member) as f64 / 1e6),
        (Strategy::Session | Strategy::Prefix, Some(affinity)) => Some(distance(candidates, member, affinity)),
        (Strategy::Engine, _) => Some(load(candidates, member) * WHOLE as f64),
    };
    let is_bounded = strategy == Strategy::Prefix && query.affinity.is_some();
    candidates.each().map(move |(index, member)| (index, own(member), is_bounded && !has_room(member)))
}
