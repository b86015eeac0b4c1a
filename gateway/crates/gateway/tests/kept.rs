//! Connections to an endpoint that are used again, and endpoints that close them without a word.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{ANSWER, BODY, House};
use tenon_testkit::{Step, json_answer, wait_for};

const STALE: &str = "tenon_gateway_upstream_failures_total{at=\"stale_connection\"}";

fn answer() -> Step {
    Step::Send(json_answer(200, ANSWER))
}

fn house() -> House {
    House::with(|setup| setup.with("TENON_GATEWAY_THREADS", 1))
}

#[test]
fn a_request_that_crossed_the_close_of_its_connection_goes_again_on_a_new_one() {
    let house = house();
    let asked = AtomicUsize::new(0);
    house.upstream.say(move |_| if asked.fetch_add(1, Ordering::SeqCst) == 1 { vec![Step::Close] } else { vec![answer()] });
    assert_eq!([house.chat(BODY).status, house.chat(BODY).status], [200, 200]);
    assert_eq!((house.upstream.count(), house.upstream.connections.load(Ordering::SeqCst)), (3, 2));
    let bodies: Vec<_> = house.upstream.asked.lock().unwrap().iter().map(|asked| asked.body.clone()).collect();
    assert_eq!(bodies[1], bodies[2], "the same once more");
    assert_eq!(house.gateway.metric(STALE), 1.0);
    wait_for("a record each", || house.control.usage_count() == 2);
}

#[test]
fn an_endpoint_that_only_closes_is_asked_once_on_each_kind_of_connection() {
    let house = house();
    assert_eq!(house.chat(BODY).status, 200);
    house.upstream.say(|_| vec![Step::Close]);
    let failed = house.chat(BODY);
    assert_eq!((failed.status, failed.code().as_str(), house.upstream.count()), (502, "upstream_error", 3), "the kept one, and a new one");
    assert_eq!((house.chat(BODY).status, house.upstream.count()), (502, 4), "a new one only");
}

#[test]
fn an_endpoint_that_may_have_worked_on_it_is_not_asked_again() {
    let house = house();
    assert_eq!(house.chat(BODY).status, 200);
    house.upstream.say(|_| vec![Step::Wait(Duration::from_millis(900)), Step::Close]);
    assert_eq!((house.chat(BODY).status, house.upstream.count()), (502, 2));
}
