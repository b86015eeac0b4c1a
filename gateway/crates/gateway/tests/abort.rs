//! A caller leaves in the middle of a stream: what happens upstream, and what is billed, is what the endpoint does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{DONE, House, STREAM_BODY, USAGE_FRAME, endpoint, frame, model, table};
use tenon_contract::{AbortBilling, Outcome, UsageRecord, UsageSource};
use tenon_testkit::{Step, sse_head, wait_for};

/// A house whose endpoint does this when its caller leaves, and a stream that is left after its first frame.
fn left(billing: AbortBilling, frames: Vec<Step>, knobs: &[(&'static str, u64)]) -> (House, UsageRecord) {
    let house = House::with(|setup| knobs.iter().fold(setup, |setup, (name, value)| setup.with(name, value)));
    let mut told = endpoint("e1", &house.upstream.url());
    told.abort_billing = billing as i32;
    house.gateway.wait_revision(house.control.put_routing(table(vec![told], vec![model("m", "e1")])));
    house.upstream.say(move |_| [vec![Step::Send(sse_head()), Step::Send(frame("a"))], frames.clone()].concat());
    let mut client = house.open(STREAM_BODY);
    assert_eq!(client.head().status, 200);
    client.chunk().unwrap();
    std::thread::sleep(Duration::from_millis(100)); // so that what is there at once has passed
    drop(client);
    wait_for("the record", || house.control.usage_count() == 1);
    let record = house.control.usage().remove(0);
    (house, record)
}

fn goes_on() -> Vec<Step> {
    vec![Step::Wait(Duration::from_millis(400)), Step::Send([frame("b"), USAGE_FRAME.to_vec(), DONE.to_vec()].concat()), Step::Close]
}

#[test]
fn an_endpoint_that_stops_is_cancelled_and_what_passed_is_counted() {
    let (house, record) = left(AbortBilling::Stops, vec![Step::UntilGone], &[]);
    assert_eq!((record.outcome(), record.usage_source(), record.output_tokens), (Outcome::ClientGone, UsageSource::Estimated, 1));
    wait_for("the cancel arrives", || house.upstream.cancelled.load(Ordering::SeqCst) == 1);
}

#[test]
fn an_endpoint_that_goes_on_is_read_to_its_end_for_the_true_numbers() {
    let (house, record) = left(AbortBilling::Continues, goes_on(), &[]);
    assert_eq!((record.outcome(), record.usage_source()), (Outcome::ClientGone, UsageSource::Engine));
    assert_eq!((record.input_tokens, record.output_tokens), (9, 2));
    assert_eq!(house.gateway.metric("tenon_gateway_aborts_drained_total"), 1.0);
    assert_eq!(house.upstream.cancelled.load(Ordering::SeqCst), 0);
    wait_for("nothing runs", || house.gateway.metric("tenon_gateway_calls_running") == 0.0);
}

#[test]
fn reading_on_has_an_end_in_time_and_in_number() {
    let (house, record) = left(AbortBilling::Continues, vec![Step::UntilGone], &[("TENON_GATEWAY_ABORT_DRAIN_MS", 300)]);
    assert_eq!((record.outcome(), record.usage_source(), record.output_tokens), (Outcome::ClientGone, UsageSource::Estimated, 1));
    wait_for("the cancel arrives", || house.upstream.cancelled.load(Ordering::SeqCst) == 1);
    let (house, record) = left(AbortBilling::Continues, vec![Step::UntilGone], &[("TENON_GATEWAY_ABORT_DRAINS_MAX", 0)]);
    assert_eq!((record.outcome(), record.usage_source()), (Outcome::ClientGone, UsageSource::Estimated));
    assert_eq!(house.gateway.metric("tenon_gateway_aborts_drained_total"), 0.0);
}

#[test]
fn running_numbers_are_asked_for_and_the_last_ones_are_billed() {
    let running = b"data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5}}\n\n".to_vec();
    let (house, record) = left_after_two(running);
    let options = &house.upstream.last().json()["stream_options"];
    assert_eq!((&options["include_usage"], &options["continuous_usage_stats"]), (&true.into(), &true.into()));
    assert_eq!((record.outcome(), record.usage_source()), (Outcome::ClientGone, UsageSource::Continuous));
    assert_eq!((record.input_tokens, record.output_tokens), (9, 5));
    wait_for("the cancel arrives", || house.upstream.cancelled.load(Ordering::SeqCst) == 1);
}

fn left_after_two(running: Vec<u8>) -> (House, UsageRecord) {
    // Both frames are there when the caller reads its first: it leaves after the second was seen.
    left(AbortBilling::Continuous, vec![Step::Send(running), Step::UntilGone], &[])
}
