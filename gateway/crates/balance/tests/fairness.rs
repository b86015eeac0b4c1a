//! Under any arrivals, no waiting tenant falls behind another by more tokens than a call or two.

use proptest::prelude::*;
use std::collections::HashMap;
use tenon_balance::{FairQueue, TokenCharge, Turn};

#[derive(Clone, Debug)]
enum Event {
    /// Tenant, estimate.
    Arrive(u64, u64),
    Serve,
    /// A running call ends; its real usage is this many per cent of the estimate.
    End(usize, u64),
}

const CALL_MAX: u64 = 1_000;
const RUNNING_MAX: usize = 4;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..4_u64, 1..=CALL_MAX).prop_map(|(tenant, tokens)| Event::Arrive(tenant, tokens)),
        3 => Just(Event::Serve),
        3 => (any::<usize>(), 0..=200_u64).prop_map(|(which, per_cent)| Event::End(which, per_cent)),
    ];
    prop::collection::vec(event, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn while_two_tenants_wait_neither_gets_far_ahead(events in events()) {
        let mut queue = FairQueue::new(usize::MAX);
        let mut waiting: HashMap<u64, usize> = HashMap::new();
        let mut running: Vec<TokenCharge> = vec![];
        // For each pair: how much more the first got than the second since both began to wait.
        let mut lead: HashMap<(u64, u64), i64> = HashMap::new();
        for event in events {
            match event {
                Event::Arrive(tenant, tokens) => {
                    queue.join(1, tenant, tokens, tenant).unwrap();
                    *waiting.entry(tenant).or_default() += 1;
                }
                Event::Serve if running.len() < RUNNING_MAX => {
                    let Some((charge, tenant)) = queue.next(|_| Turn::Takes) else {
                        prop_assert!(waiting.values().all(|count| *count == 0), "a call waits and none is served");
                        continue;
                    };
                    *waiting.get_mut(&tenant).unwrap() -= 1;
                    for other in 0..4 {
                        *lead.entry((tenant, other)).or_default() += charge.tokens as i64;
                        *lead.entry((other, tenant)).or_default() -= charge.tokens as i64;
                    }
                    running.push(charge);
                }
                Event::End(which, per_cent) if !running.is_empty() => {
                    let charge = running.swap_remove(which % running.len());
                    queue.correct(charge, charge.tokens * per_cent / 100);
                    let change = (charge.tokens * per_cent / 100) as i64 - charge.tokens as i64;
                    for other in 0..4 {
                        *lead.entry((charge.flow, other)).or_default() += change;
                        *lead.entry((other, charge.flow)).or_default() -= change;
                    }
                }
                _ => {}
            }
            // A pair counts from the moment both wait.
            for one in 0..4 {
                for other in 0..4 {
                    let both = [one, other].iter().all(|tenant| waiting.get(tenant).is_some_and(|count| *count > 0));
                    if !both {
                        lead.insert((one, other), 0);
                    }
                }
            }
            // One call that was decided earlier, and what running calls used beyond their estimates.
            let bound = 2 * CALL_MAX as i64 * (1 + RUNNING_MAX as i64);
            prop_assert!(lead.values().all(|lead| lead.abs() <= bound), "{lead:?}");
        }
    }
}

/// Long run: a tenant with a thousand large calls waiting, against two that send one small call at a time.
#[test]
fn small_tenants_are_served_as_if_the_large_one_were_one_of_them() {
    let mut queue = FairQueue::new(usize::MAX);
    let mut served: HashMap<u64, u64> = HashMap::new();
    (0..1_000).for_each(|_| assert!(queue.join(1, 0, 900, 0).is_ok()));
    for polite in [1, 2] {
        queue.join(1, polite, 30, polite).unwrap();
    }
    for _ in 0..3_000 {
        let (charge, tenant) = queue.next(|_| Turn::Takes).unwrap();
        *served.entry(tenant).or_default() += charge.tokens;
        if tenant != 0 {
            queue.join(1, tenant, 30, tenant).unwrap();
        }
    }
    let least = served.values().min().unwrap();
    let most = served.values().max().unwrap();
    assert!(most - least <= 2 * 900, "{served:?}");
}
