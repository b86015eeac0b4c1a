//! Properties of every strategy, whatever state the endpoints are in.

#![allow(clippy::panic)]
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use tenon_balance::{
    AttemptOutcome, Availability, BOUND, Capacity, EndpointState, EngineLoad, Group, Member, Pick, RetryAllowance, RouteQuery, RouteState,
    Strategy as By, bits, hash_text,
};

const ALL: [By; 7] = [By::Weighted, By::LeastOutstanding, By::Latency, By::Cost, By::Session, By::Prefix, By::Engine];

fn member(index: usize, weight: u32, tier: u32, running_max: u32) -> Member {
    let state = Arc::new(EndpointState::new(&format!("endpoint-{index}"), Arc::new(Capacity::default())));
    Member { state, weight, tier, running_max, input_cost: 0, output_cost: 0 }
}

fn group(by: By, members: Vec<Member>) -> Group {
    Group::new(by, Arc::new(RetryAllowance::default()), members)
}

fn plain(by: By, count: usize) -> Group {
    group(by, (0..count).map(|index| member(index, 1, 0, 0)).collect())
}

fn query(random: u64) -> RouteQuery {
    let random = hash_text(&random.to_le_bytes());
    RouteQuery { now_ms: 1_000_000, random, affinity: Some(hash_text(&random.to_be_bytes())), input_tokens: 100, output_tokens: 100 }
}

fn taken(pick: Pick) -> usize {
    match pick {
        Pick::Taken { index, .. } => index,
        other => panic!("nothing was taken: {other:?}"),
    }
}

#[derive(Clone, Debug)]
enum Event {
    Pick(u64),
    Leave(usize),
    Judge(usize, u8),
    Check(usize, bool),
    EngineLoad(usize, u32),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => any::<u64>().prop_map(Event::Pick),
        4 => any::<usize>().prop_map(Event::Leave),
        4 => (any::<usize>(), 0..7_u8).prop_map(|(index, verdict)| Event::Judge(index, verdict)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(index, good)| Event::Check(index, good)),
        1 => (any::<usize>(), 0..50_u32).prop_map(|(index, running)| Event::EngineLoad(index, running)),
        2 => (1..9_000_u64).prop_map(Event::Pass),
    ]
}

fn verdict(number: u8) -> AttemptOutcome {
    [
        AttemptOutcome::Answered,
        AttemptOutcome::Unreachable,
        AttemptOutcome::Failed,
        AttemptOutcome::Busy(3_000),
        AttemptOutcome::Unauthorised,
        AttemptOutcome::Forbidden,
        AttemptOutcome::Nothing,
    ][usize::from(number)]
}

/// The reported states explain the pick.
fn check_explanation(group: &Group, states: &[RouteState], taken: usize) -> Result<(), TestCaseError> {
    let own = states[taken];
    if own.is_out || !own.has_room {
        return Ok(()); // all are unhealthy
    }
    let of_tier = |index: &usize| group.members()[*index].tier == group.members()[taken].tier;
    let rivals = || (0..states.len()).filter(of_tier).map(|index| states[index]).filter(|state| state.score.is_some() && !state.is_over_bound);
    let scores: Vec<f64> = rivals().filter_map(|state| state.score).collect();
    let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
    match group.strategy {
        By::Weighted => prop_assert!(own.score.is_some_and(|share| share > 0.0) && (scores.iter().sum::<f64>() - 1.0).abs() < 1e-9),
        // Two are drawn by chance; without measurements there is no score.
        By::Latency => prop_assert!(scores.is_empty() || scores.len() < 3 || own.score.is_none_or(|own| scores.iter().any(|other| own <= *other))),
        _ => prop_assert!(!own.is_over_bound && own.score == Some(lowest), "{taken}: {states:?}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn only_open_and_usable_routes_with_room_of_the_lowest_tier(
        shape in prop::collection::vec((1..4_u32, 0..3_u32, 0..4_u32), 1..7),
        events in prop::collection::vec((event(), any::<u64>()), 1..120),
        by in 0..ALL.len(),
    ) {
        let members: Vec<_> = shape.iter().enumerate().map(|(i, (weight, tier, max))| member(i, *weight, *tier, *max)).collect();
        let group = group(ALL[by], members);
        let (mut now, mut running) = (1_000_000, vec![]);
        for (event, open) in events {
            let nth = |index: usize| &group.members()[index % group.members().len()];
            match event {
                Event::Pick(random) => {
                    let is_usable = |i: &usize| matches!(group.members()[*i].state.availability(now), Availability::Usable(_));
                    let has_room = |i: &usize| group.members()[*i].state.capacity.has_room(group.members()[*i].running_max);
                    let known = open & ((1 << group.members().len()) - 1);
                    let usable: Vec<usize> = bits(known).filter(is_usable).collect();
                    let ready: Vec<usize> = usable.iter().copied().filter(has_room).collect();
                    let query = RouteQuery { now_ms: now, ..query(random) };
                    let states = group.route_states(open, &query);
                    match group.pick(open, &query) {
                        Pick::Taken { index, trial } => {
                            check_explanation(&group, &states, index)?;
                            prop_assert!(known & 1 << index != 0, "an excluded route was taken");
                            if usable.is_empty() {
                                prop_assert!(!trial);
                            } else {
                                prop_assert!(ready.contains(&index), "{index} of {ready:?}");
                                let lowest = ready.iter().map(|i| group.members()[*i].tier).min();
                                prop_assert_eq!(Some(group.members()[index].tier), lowest);
                            }
                            running.push((index, trial));
                        }
                        Pick::Full(full) => {
                            prop_assert!(full != 0 && full & !known == 0 && ready.is_empty());
                        }
                        Pick::None => prop_assert_eq!(known, 0, "while a route is open, one is tried"),
                    }
                }
                Event::Leave(which) if !running.is_empty() => {
                    let (index, trial) = running.swap_remove(which % running.len());
                    let state = &group.members()[index].state;
                    if trial {
                        state.end_trial(now);
                    }
                    state.capacity.leave();
                }
                Event::Leave(_) => {}
                Event::Judge(index, number) => nth(index).state.record_outcome(verdict(number), now),
                Event::Check(index, good) => nth(index).state.record_check(Some(good), now),
                Event::EngineLoad(index, count) => {
                    nth(index).state.set_engine_load(EngineLoad { running: count, waiting: count / 3, kv_permille: Some(500) }, now);
                }
                Event::Pass(ms) => now += ms,
            }
            let sum: u32 = group.members().iter().map(|member| member.state.capacity.running()).sum();
            prop_assert_eq!(sum as usize, running.len(), "every slot is accounted for");
        }
    }

    #[test]
    fn callers_faults_never_open_a_breaker(statuses in prop::collection::vec(400..500_u16, 1..500)) {
        let state = EndpointState::new("e", Arc::new(Capacity::default()));
        for status in statuses.into_iter().filter(|status| ![401, 403, 407].contains(status)) {
            state.record_outcome(AttemptOutcome::of_status(status, None), 1_000);
            prop_assert_eq!(state.availability(1_000), Availability::Usable(1_024));
        }
    }

    #[test]
    fn no_endpoint_holds_more_than_its_bounded_share(heads in prop::collection::vec(0..3_u64, 1..200), count in 2..8_usize) {
        let group = plain(By::Prefix, count);
        for (done, head) in heads.iter().enumerate() {
            let index = taken(group.pick(u64::MAX, &RouteQuery { affinity: Some(hash_text(&head.to_le_bytes())), ..query(done as u64) }));
            let bound = (BOUND * (done + 1) as f64 / count as f64).ceil();
            prop_assert!(f64::from(group.members()[index].state.capacity.running()) <= bound);
        }
    }
}

#[test]
fn weights_are_kept() {
    let group = group(By::Weighted, vec![member(0, 1, 0, 0), member(1, 3, 0, 0)]);
    let second = (0..4_000).filter(|i| taken(group.pick(u64::MAX, &query(*i))) == 1).count();
    assert!((2_850..3_150).contains(&second), "{second}");
}

#[test]
fn least_outstanding_fills_by_weight() {
    let group = group(By::LeastOutstanding, vec![member(0, 1, 0, 0), member(1, 3, 0, 0)]);
    for i in 0..40 {
        taken(group.pick(u64::MAX, &query(i)));
    }
    let running: Vec<_> = group.members().iter().map(|member| member.state.capacity.running()).collect();
    assert_eq!(running, [10, 30]);
}

#[test]
fn latency_avoids_the_slow_one_until_the_fast_ones_are_busy() {
    let group = plain(By::Latency, 3);
    for (member, us) in group.members().iter().zip([10_000, 10_000, 500_000]) {
        member.state.record_first_token(us, 1_000_000);
    }
    let of_slow = (0..300).filter(|i| taken(group.pick(u64::MAX, &query(*i))) == 2).count();
    assert!((1..30).contains(&of_slow), "{of_slow}");
}

#[test]
fn cost_takes_the_cheapest_for_this_call_and_spills_when_it_is_full() {
    let mut members = vec![member(0, 1, 0, 2), member(1, 1, 0, 0)];
    (members[0].input_cost, members[0].output_cost) = (1_000, 9_000);
    (members[1].input_cost, members[1].output_cost) = (5_000, 5_000);
    let group = group(By::Cost, members);
    let long_answer = RouteQuery { input_tokens: 10, output_tokens: 1_000, ..query(1) };
    let long_prompt = RouteQuery { input_tokens: 1_000, output_tokens: 10, ..query(1) };
    assert_eq!(taken(group.pick(u64::MAX, &long_answer)), 1);
    let picks: Vec<_> = (0..3).map(|_| taken(group.pick(u64::MAX, &long_prompt))).collect();
    assert_eq!(picks, [0, 0, 1]);
}

#[test]
fn sessions_stay_and_only_those_of_the_lost_endpoint_move() {
    let group = plain(By::Session, 5);
    let home = |open: u64| -> HashMap<u64, usize> { (0..500).map(|i| (i, taken(group.pick(open, &query(i))))).collect() };
    let before = home(u64::MAX);
    assert_eq!(before, home(u64::MAX));
    for index in 0..5 {
        let share = before.values().filter(|own| **own == index).count();
        assert!((60..140).contains(&share), "{share}");
    }
    (0..3).for_each(|_| group.members()[2].state.record_outcome(AttemptOutcome::Unreachable, 1_000_000));
    let after = home(u64::MAX);
    for (session, index) in &before {
        assert!(after[session] == *index || *index == 2, "a session moved without need");
        assert_ne!(after[session], 2);
    }
}

#[test]
fn engines_that_queue_are_avoided_and_old_figures_are_ignored_in_the_end() {
    let group = plain(By::Engine, 2);
    let figures = |running, waiting| EngineLoad { running, waiting, kv_permille: Some(300) };
    group.members()[0].state.set_engine_load(figures(2, 8), 1_000_000);
    group.members()[1].state.set_engine_load(figures(6, 0), 1_000_000);
    assert!((0..10).all(|i| taken(group.pick(u64::MAX, &query(i))) == 1));
    let silent = RouteQuery { now_ms: 1_000_000 + 30_000, ..query(1) };
    assert_eq!(taken(group.pick(u64::MAX, &silent)), 1, "an engine that stops reporting with a queue most likely still has it");
    let later = RouteQuery { now_ms: 1_000_000 + 61_000, ..query(1) };
    assert_eq!(taken(group.pick(u64::MAX, &later)), 0, "without figures our own calls count: eleven against none");
}

#[test]
fn when_all_are_unhealthy_they_take_turns() {
    let group = plain(By::Weighted, 3);
    let now = 1_000_000;
    for member in group.members() {
        (0..3).for_each(|_| member.state.record_outcome(AttemptOutcome::Unreachable, now));
        assert!(matches!(member.state.availability(now), Availability::Out(_)));
    }
    let mut tried = vec![];
    for i in 0..3 {
        let index = taken(group.pick(u64::MAX, &RouteQuery { now_ms: now + i, ..query(i) }));
        group.members()[index].state.record_outcome(AttemptOutcome::Unreachable, now + i);
        tried.push(index);
    }
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2], "each failure makes another one the first to recover");
    let first = taken(group.pick(u64::MAX, &query(7)));
    group.members()[first].state.record_outcome(AttemptOutcome::Answered, now + 10);
    assert!(matches!(group.members()[first].state.availability(now + 10), Availability::Usable(_)), "a successful call brings it back");
}
