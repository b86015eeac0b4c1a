//! Every interleaving of the atomics, by model checking (`cargo test -p tenon-limits --features loom --test
//! interleavings`).
#![allow(clippy::unwrap_used)]

use loom::sync::Arc;
use loom::thread;
use tenon_limits::{Lease, SLOT_US, SLOTS, Window};

/// On a lease of ten, two calls that each reserve `reserved` and then cost `charges`, and a close.
fn two_calls_and_a_close(reserved: i64, charges: [i64; 2]) {
    loom::model(move || {
        let lease = Arc::new(Lease::new("l", 10, u64::MAX));
        let call = |charge: i64| {
            let lease = lease.clone();
            thread::spawn(move || {
                let taken = lease.reserve(reserved, 0);
                if taken {
                    lease.settle(reserved, charge);
                }
                if taken { charge } else { 0 }
            })
        };
        let calls = charges.map(call);
        let closed = lease.close();
        let spent: i64 = calls.into_iter().map(|call| call.join().unwrap()).sum();
        assert!(spent <= 10);
        match closed {
            // What was reported as final is final: a later charge would never be counted.
            Some(closed) => assert_eq!((closed, lease.reserve(0, 0)), (lease.spent(), false)),
            None => assert_eq!((lease.spent(), lease.left(0)), (spent, 10 - spent)),
        }
    });
}

#[test]
fn two_calls_that_do_not_fit_together_are_not_both_admitted() {
    two_calls_and_a_close(6, [6, 6]);
}

#[test]
fn a_call_above_its_bound_does_not_make_a_lease_look_idle() {
    two_calls_and_a_close(4, [8, 2]);
}

#[test]
fn a_window_never_admits_more_than_its_limit_with_two_threads() {
    loom::model(|| {
        let window = Arc::new(Window::default());
        let take = |n: u64| {
            let window = window.clone();
            thread::spawn(move || u64::from(window.take(n, 3, 0).is_some()) * n)
        };
        let takes = [take(2), take(2)];
        let taken: u64 = takes.into_iter().map(|take| take.join().unwrap()).sum();
        assert_eq!((taken, window.used(0)), (2, 2));
    });
}

#[test]
fn nothing_is_lost_or_kept_when_the_window_moves_during_a_take() {
    loom::model(|| {
        let window = Arc::new(Window::default());
        let slot = window.take(1, 3, 0).unwrap();
        let later = SLOTS as u64 * SLOT_US;
        let other = window.clone();
        let mover = thread::spawn(move || u64::from(other.take(2, 3, later).is_some()) * 2);
        window.give_back(slot, 1);
        let now = window.take(1, 3, later).map_or(0, |_| 1);
        let moved = mover.join().unwrap();
        assert_eq!(moved, 2, "what has left the window blocks no call");
        assert_eq!(window.used(later), moved + now);
    });
}
