//! The promise of a window, over every history: no 60 seconds hold more than the limit.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tenon_limits::{SLOT_US, SLOTS, SlotIndex, Window};

const MINUTE_US: u64 = 60_000_000;

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Take(u64),
    /// The nth of those taken used this much less than it took.
    GiveBack(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..5_000_000_u64).prop_map(Step::Wait),
        (0..70_000_000_u64).prop_map(Step::Wait),
        (1..40_u64).prop_map(Step::Take),
        (1..40_u64).prop_map(Step::Take),
        (0..20_usize, 1..40_u64).prop_map(|(which, n)| Step::GiveBack(which, n)),
    ];
    prop::collection::vec(step, 1..120)
}

/// What was admitted: when, in which slot it was counted, how much still counts.
type History = Vec<(u64, SlotIndex, u64)>;

fn most_in_a_minute(history: &History) -> u64 {
    let within = |from: u64| history.iter().filter(|(at, ..)| (from..from + MINUTE_US).contains(at)).map(|(.., n)| n).sum();
    history.iter().map(|(at, ..)| within(*at)).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn no_minute_holds_more_than_the_limit_and_a_wait_is_exact(steps in steps(), limit in 1..100_u64, start in 0..200_000_000_u64) {
        let (window, mut now, mut history) = (Window::default(), start, History::new());
        for step in steps {
            match step {
                Step::Wait(time) => now += time,
                Step::Take(n) => match window.take(n, limit, now) {
                    Some(slot) => history.push((now, slot, n)),
                    None if n <= limit => {
                        let wait = window.room_in_us(n, limit, now);
                        prop_assert!(wait > 0 && wait <= MINUTE_US + SLOT_US);
                        // Not too early; and there really is room when the wait is over.
                        let before = now + wait - 1;
                        prop_assert!(window.used(now) + n > limit);
                        if before / SLOT_US > now / SLOT_US {
                            prop_assert!(window.used(before) + n > limit);
                        }
                        now += wait;
                        let slot = window.take(n, limit, now);
                        prop_assert!(slot.is_some());
                        history.push((now, slot.unwrap(), n));
                    }
                    None => prop_assert!(n > limit),
                },
                Step::GiveBack(which, n) => {
                    if let Some((_, slot, taken)) = history.get_mut(which) {
                        let n = n.min(*taken);
                        window.give_back(*slot, n);
                        *taken -= n;
                    }
                }
            }
            prop_assert!(most_in_a_minute(&history) <= limit);
        }
    }

    #[test]
    fn what_was_used_comes_free_after_a_minute_and_a_slot(n in 1..1000_u64, at in 0..500_000_000_u64) {
        let window = Window::default();
        let _place = window.take(n, 1000, at).unwrap();
        prop_assert_eq!(window.used(at + MINUTE_US - 1), n);
        prop_assert_eq!(window.used(at + SLOTS as u64 * SLOT_US), 0);
        prop_assert!(window.empty_in_us(at + MINUTE_US + SLOT_US) == 0);
    }
}

#[test]
fn an_absurd_count_does_not_stay_indefinitely() {
    let window = Window::default();
    window.add(u64::MAX >> 2, 0);
    assert!(window.take(1, 100, 0).is_none());
    assert!(window.take(1, 100, 70_000_000).is_some());
}

#[test]
fn threads_together_stay_within_the_limit() {
    let window = Window::default();
    let taken: u64 = std::thread::scope(|scope| {
        let taker = |_| scope.spawn(|| (0..20_000_u64).filter(|i| window.take(1, 5000, i * 100).is_some()).count() as u64);
        (0..4).map(taker).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken, 5000);
}
