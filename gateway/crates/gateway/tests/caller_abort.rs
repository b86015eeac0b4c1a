//! A caller aborts in the middle of a stream: the endpoint's behaviour decides what happens upstream and what is billed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{DONE, STREAM_BODY, Stack, USAGE_FRAME, endpoint, frame, model, table};
use tenon_contract::{AbortBilling, Outcome, UsageRecord, UsageSource};
use tenon_testkit::{Step, sse_head, wait_for};

/// What the endpoint does after its first frame; the flag is set when the gateway has noticed that the caller is gone.
type Steps = fn(Arc<AtomicBool>) -> Vec<Step>;

/// A stream whose caller reads up to the bytes `last` and aborts.
fn aborted(billing: AbortBilling, steps: Steps, last: &[u8], knobs: &[(&'static str, u64)]) -> (Stack, UsageRecord) {
    let stack = Stack::with(|setup| knobs.iter().fold(setup, |setup, (name, value)| setup.with(name, value)));
    let mut billed = endpoint("e1", &stack.upstream.url());
    billed.abort_billing = billing as i32;
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![billed], vec![model("m", "e1")])));
    let noticed = Arc::new(AtomicBool::new(false));
    let flag = noticed.clone();
    stack.upstream.respond(move |_| [vec![Step::Send(sse_head()), Step::Send(frame("a"))], steps(flag.clone())].concat());
    let mut client = stack.open(STREAM_BODY);
    assert_eq!(client.head().status, 200);
    client.rest_until(last);
    drop(client);
    wait_for("the gateway notices", || stack.gateway.metric("tenon_gateway_connections") == 0.0);
    noticed.store(true, Ordering::SeqCst);
    wait_for("the record", || stack.control.usage_count() == 1);
    let record = stack.control.usage().remove(0);
    (stack, record)
}

const RUNNING: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5}}\n\n";

fn stops(_: Arc<AtomicBool>) -> Vec<Step> {
    vec![Step::UntilGone]
}

fn continues(noticed: Arc<AtomicBool>) -> Vec<Step> {
    vec![Step::Until(noticed), Step::Send([frame("b"), USAGE_FRAME.to_vec(), DONE.to_vec()].concat()), Step::Close]
}

fn reports_continuously(_: Arc<AtomicBool>) -> Vec<Step> {
    vec![Step::Send(RUNNING.to_vec()), Step::UntilGone]
}

#[test]
fn an_endpoint_that_stops_is_cancelled_and_what_passed_is_counted() {
    let (stack, record) = aborted(AbortBilling::Stops, stops, &frame("a"), &[]);
    assert_eq!((record.outcome(), record.usage_source(), record.output_tokens), (Outcome::ClientGone, UsageSource::Estimated, 1));
    wait_for("the cancel arrives", || stack.upstream.cancelled.load(Ordering::SeqCst) == 1);
}

#[test]
fn an_endpoint_that_goes_on_is_read_to_its_end_for_the_true_numbers() {
    let (stack, record) = aborted(AbortBilling::Continues, continues, &frame("a"), &[]);
    assert_eq!((record.outcome(), record.usage_source()), (Outcome::ClientGone, UsageSource::Engine));
    assert_eq!((record.input_tokens, record.output_tokens), (9, 2));
    assert_eq!(stack.gateway.metric("tenon_gateway_aborts_drained_total"), 1.0);
    assert_eq!(stack.upstream.cancelled.load(Ordering::SeqCst), 0);
    wait_for("nothing runs", || stack.gateway.metric("tenon_gateway_calls_running") == 0.0);
}

#[test]
fn reading_on_ends_after_a_time() {
    let (stack, record) = aborted(AbortBilling::Continues, stops, &frame("a"), &[("TENON_GATEWAY_ABORT_DRAIN_MS", 300)]);
    assert_eq!((record.outcome(), record.usage_source(), record.output_tokens), (Outcome::ClientGone, UsageSource::Estimated, 1));
    wait_for("the cancel arrives", || stack.upstream.cancelled.load(Ordering::SeqCst) == 1);
}

#[test]
fn the_number_of_answers_that_are_read_on_is_bounded() {
    let (stack, record) = aborted(AbortBilling::Continues, stops, &frame("a"), &[("TENON_GATEWAY_ABORT_DRAINS_MAX", 0)]);
    assert_eq!((record.outcome(), record.usage_source()), (Outcome::ClientGone, UsageSource::Estimated));
    assert_eq!(stack.gateway.metric("tenon_gateway_aborts_drained_total"), 0.0);
}

#[test]
fn continuous_usage_is_requested_and_the_last_numbers_are_billed() {
    let (stack, record) = aborted(AbortBilling::Continuous, reports_continuously, RUNNING, &[]);
    let options = &stack.upstream.last().json()["stream_options"];
    assert_eq!((&options["include_usage"], &options["continuous_usage_stats"]), (&true.into(), &true.into()));
    assert_eq!((record.outcome(), record.usage_source()), (Outcome::ClientGone, UsageSource::Continuous));
    assert_eq!((record.input_tokens, record.output_tokens), (9, 5));
    wait_for("the cancel arrives", || stack.upstream.cancelled.load(Ordering::SeqCst) == 1);
}
