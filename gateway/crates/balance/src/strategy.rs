//! One function a strategy: which of the ready routes. All are usable and have room, and there are at least two.

use crate::group::{Ask, Member, Strategy, bits};
use crate::hash::mix;
use crate::standing::{Standing, WHOLE};

pub(crate) struct Candidates<'a> {
    pub members: &'a [Member],
    pub ready: u64,
    pub ask: &'a Ask,
}

/// No endpoint holds more than this times its share of the running calls (`STRATEGY_PREFIX`; Mirrokni et al., "Consistent Hashing with
/// Bounded Loads", 2018).
pub const BOUND: f64 = 1.25;

impl Candidates<'_> {
    fn each(&self) -> impl Iterator<Item = (usize, &Member)> + Clone {
        bits(self.ready).map(|index| (index, &self.members[index]))
    }

    fn part(&self, member: &Member) -> u64 {
        match member.state.standing(self.ask.now_ms) {
            Standing::Usable(part) => part,
            Standing::Out(_) => 1,
        }
    }

    /// Its weight, less while it starts slowly.
    fn weight(&self, member: &Member) -> u64 {
        u64::from(member.weight) * self.part(member)
    }

    /// The one with the lowest value; equals are broken by chance.
    fn lowest(&self, value: impl Fn(&Member) -> f64) -> usize {
        let (mut best, mut best_value, mut equals) = (0, f64::INFINITY, 0);
        for (index, member) in self.each() {
            let own = value(member);
            if own < best_value || equals == 0 {
                (best, best_value, equals) = (index, own, 1);
            } else if own <= best_value {
                equals += 1;
                if mix(self.ask.random ^ equals).is_multiple_of(equals) {
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

pub(crate) fn weighted(candidates: &Candidates<'_>) -> usize {
    let total: u64 = candidates.each().map(|(_, member)| candidates.weight(member)).sum();
    let mut ticket = candidates.ask.random % total.max(1);
    for (index, member) in candidates.each() {
        let weight = candidates.weight(member);
        if ticket < weight {
            return index;
        }
        ticket -= weight;
    }
    // Weights fell between the two passes (a breaker opened): the last is as good as any.
    63 - candidates.ready.leading_zeros() as usize
}

pub(crate) fn least_outstanding(candidates: &Candidates<'_>) -> usize {
    candidates.lowest(|member| candidates.running_by_weight(member))
}

/// Power of two choices: two by chance, the better of them.
pub(crate) fn latency(candidates: &Candidates<'_>) -> usize {
    let count = u64::from(candidates.ready.count_ones());
    let random = candidates.ask.random;
    let first = random % count;
    let second = (first + 1 + (random >> 32) % (count - 1)) % count;
    let of = |nth: u64| bits(candidates.ready).nth(usize::try_from(nth).unwrap_or(0)).unwrap_or(0);
    let (first, second) = (of(first), of(second));
    let [one, two] = [first, second].map(|index| &candidates.members[index].state);
    let means = [one, two].map(|state| state.first_token_us(candidates.ask.now_ms));
    // Of whom nothing is known counts as the other: only its calls decide.
    let [mean_one, mean_two] = match means {
        [None, None] => [1.0, 1.0],
        [known, other] => [known.or(other).unwrap_or(1.0), other.or(known).unwrap_or(1.0)],
    };
    let cost = |index: usize, mean: f32| f64::from(mean) * candidates.running_by_weight(&candidates.members[index]);
    if cost(first, mean_one) <= cost(second, mean_two) { first } else { second }
}

/// What the call would cost there; between equals the one with less to do.
pub(crate) fn cost(candidates: &Candidates<'_>) -> usize {
    let price = |member: &Member| price(candidates.ask, member);
    let least = candidates.each().map(|(_, member)| price(member)).min().unwrap_or(0);
    let cheapest = candidates.each().filter(|(_, member)| price(member) == least).fold(0, |set, (index, _)| set | 1 << index);
    least_outstanding(&Candidates { ready: cheapest, ..*candidates })
}

/// In millionths of the price's nano-units.
fn price(ask: &Ask, member: &Member) -> u128 {
    u128::from(member.input_cost) * u128::from(ask.input_tokens.max(1)) + u128::from(member.output_cost) * u128::from(ask.output_tokens.max(1))
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998): the member with the highest score is home; when it goes, only its own sessions move.
pub(crate) fn session(candidates: &Candidates<'_>) -> usize {
    let Some(affinity) = candidates.ask.affinity else {
        return weighted(candidates);
    };
    candidates.lowest(|member| distance(candidates, member, affinity))
}

/// As [`session`], but who has more than its bounded share is passed over: a popular head does not drown its home.
pub(crate) fn prefix(candidates: &Candidates<'_>) -> usize {
    let Some(affinity) = candidates.ask.affinity else {
        return least_outstanding(candidates);
    };
    let has_room = bound(candidates);
    let room = candidates.each().filter(|(_, member)| has_room(member)).fold(0, |set, (index, _)| set | 1 << index);
    // Never empty by the numbers of one moment; other threads may move them.
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

/// -ln(u) / weight is an exponential clock: the first to ring wins with a probability that is its share of the weights.
#[allow(clippy::cast_precision_loss)] // 53 bits of a hash are plenty
fn distance(candidates: &Candidates<'_>, member: &Member, affinity: u64) -> f64 {
    let score = mix(affinity ^ member.state.hash);
    // While it starts slowly its sessions come back one by one, always the same ones first.
    let part = candidates.part(member);
    let away = part < WHOLE && mix(score) % WHOLE >= part;
    let unit = ((score >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    -unit.ln() / f64::from(member.weight.max(1)) + if away { 1e6 } else { 0.0 }
}

#[allow(clippy::cast_precision_loss)] // weights are small
pub(crate) fn engine(candidates: &Candidates<'_>) -> usize {
    candidates.lowest(|member| load(candidates, member))
}

#[allow(clippy::cast_precision_loss)] // weights are small
fn load(candidates: &Candidates<'_>, member: &Member) -> f64 {
    member.state.load(candidates.ask.now_ms) / candidates.weight(member).max(1) as f64
}

/// What each of the candidates is picked by, and whether it is passed over for its bound: for those who ask afterwards.
pub(crate) fn score(strategy: Strategy, candidates: &Candidates<'_>) -> impl Iterator<Item = (usize, Option<f64>, bool)> {
    let total: u64 = candidates.each().map(|(_, member)| candidates.weight(member)).sum();
    let (has_room, ask) = (bound(candidates), candidates.ask);
    #[allow(clippy::cast_precision_loss)] // shares and prices for people
    let own = move |member: &Member| match (strategy, ask.affinity) {
        (Strategy::Weighted, _) | (Strategy::Session, None) => Some(candidates.weight(member) as f64 / total.max(1) as f64),
        (Strategy::LeastOutstanding, _) | (Strategy::Prefix, None) => Some(candidates.running_by_weight(member) * WHOLE as f64),
        (Strategy::Latency, _) => {
            member.state.first_token_us(ask.now_ms).map(|mean| f64::from(mean) * candidates.running_by_weight(member) * WHOLE as f64)
        }
        (Strategy::Cost, _) => Some(price(ask, member) as f64 / 1e6),
        (Strategy::Session | Strategy::Prefix, Some(affinity)) => Some(distance(candidates, member, affinity)),
        (Strategy::Engine, _) => Some(load(candidates, member) * WHOLE as f64),
    };
    let is_bounded = strategy == Strategy::Prefix && ask.affinity.is_some();
    candidates.each().map(move |(index, member)| (index, own(member), is_bounded && !has_room(member)))
}
