//! Hard budgets: spending stays within leases when gateways are killed, disconnected or late.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::{Duration, Instant};
use support::{ANSWER, BODY, CHAT, STREAM_BODY, Stack, TENANT, frame, setup};
use tenon_contract::{Budget, BudgetMode, Governance, LeaseUse, Price, Subject, UsageSource};
use tenon_testkit::{Gateway, Setup, Step, json_answer, post, sse_head, wait_for};

const CAPPED: &str = r#"{"model":"m","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}"#;
/// What one call costs at most: its bytes, what a template may add, its cap. A token costs a nano.
fn bound(body: &str, output: i64) -> i64 {
    i64::try_from(body.len()).unwrap() + 1024 + output
}
/// By `ANSWER`: 11 in, 7 out.
const COST: i64 = 18;

fn price() -> Price {
    Price {
        price_id: "019a0000-0000-7000-8000-0000000000f1".into(),
        model: "m".into(),
        currency: "EUR".into(),
        effective_from_unix_ms: 1,
        input_nano_per_million: 1_000_000,
        output_nano_per_million: 1_000_000,
        cache_read_nano_per_million: 1_000_000,
        reasoning_nano_per_million: 1_000_000,
        ..Price::default()
    }
}

fn budget() -> Budget {
    Budget {
        budget_id: "b".into(),
        subject: Subject::Tenant as i32,
        subject_id: TENANT.into(),
        mode: BudgetMode::Hard as i32,
        currency: "EUR".into(),
        also_keys: vec![],
    }
}

fn stack(amount: i64, prices: Vec<Price>) -> Stack {
    let stack = Stack::new();
    stack.control.set_budget("b", amount);
    let governance = Governance { tenant_id: TENANT.into(), budgets: vec![budget()], prices, ..Governance::default() };
    stack.gateway.wait_revision(stack.control.put_governance(governance));
    stack
}

fn used(record: &tenon_contract::UsageRecord) -> i64 {
    record.lease_uses.iter().map(|LeaseUse { nano, .. }| nano).sum()
}

#[test]
fn a_call_reserves_its_bound_and_is_charged_what_it_used() {
    let stack = stack(1_000_000, vec![price()]);
    let answer = stack.chat(CAPPED);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let record = stack.usage(&answer);
    assert_eq!((used(&record), record.price_id.as_str(), record.usage_source()), (COST, price().price_id.as_str(), UsageSource::Engine));
    assert_eq!(record.process_id, stack.control.leases()[0].1.process_id);
    assert!(stack.upstream.last().json()["max_tokens"] == 100, "the caller's cap stands");
    wait_for("what was spent is reported", || stack.control.leases()[0].1.reported_nano == COST);
    assert_eq!(stack.gateway.metric("tenon_gateway_leases"), 1.0);
}

#[test]
fn a_call_without_a_cap_gets_one_that_the_lease_can_pay() {
    let stack = stack(bound(BODY, 700), vec![price()]);
    assert_eq!(stack.chat(BODY).status, 200);
    assert_eq!(stack.upstream.last().json()["max_tokens"], 700);
    stack.control.set_budget("b", 1_000_000);
    wait_for("more is leased", || stack.chat(BODY).status == 200 && stack.upstream.last().json()["max_tokens"] == 4096);
    let null = BODY.replace("{\"model\"", "{\"max_completion_tokens\":null,\"model\"");
    assert_eq!(stack.chat(&null).status, 200);
    assert_eq!(stack.upstream.last().json()["max_completion_tokens"], 4096, "no key stands twice");
}

#[test]
fn a_spent_budget_refuses_and_says_so() {
    let stack = stack(bound(CAPPED, 100) + 3 * COST, vec![price()]);
    for _ in 0..4 {
        assert_eq!(stack.chat(CAPPED).status, 200);
    }
    let refused = stack.chat(CAPPED);
    assert_eq!((refused.status, refused.code().as_str()), (402, "budget_exhausted"));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(stack.upstream.count(), 4, "what is refused reaches no upstream");
}

#[test]
fn what_has_no_price_or_no_bound_is_refused() {
    let unpriced = stack(1_000_000, vec![]);
    assert_eq!((unpriced.chat(CAPPED).status, unpriced.chat(CAPPED).code().as_str()), (403, "model_not_priced"));
    let stack = stack(1_000_000, vec![price()]);
    let image = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:x"}}]}]}"#;
    let refused = stack.chat(image);
    assert_eq!((refused.status, refused.code().as_str()), (400, "unbounded_input"), "{}", refused.text());
    assert_eq!(stack.chat(CAPPED).status, 200);
}

#[test]
fn without_the_control_plane_there_is_no_lease_and_no_call() {
    let stack = stack(1_000_000, vec![price()]);
    assert_eq!(stack.chat(CAPPED).status, 200);
    stack.control.stop();
    wait_for("the connection is missed", || stack.gateway.metric("tenon_gateway_leases_connected") == 0.0);
    assert_eq!(stack.chat(CAPPED).status, 200, "what is leased is leased");
    let large = CAPPED.replace("100", "900000");
    let refused = stack.chat(&large);
    assert_eq!((refused.status, refused.code().as_str()), (503, "budget_lease_unavailable"));
    assert!(refused.header("retry-after").is_some());
}

#[test]
fn calls_are_paid_again_when_the_control_plane_is_back() {
    let mut stack = stack(1_000_000, vec![price()]);
    stack.control.stop();
    wait_for("the connection is missed", || stack.gateway.metric("tenon_gateway_leases_connected") == 0.0);
    let refused = stack.chat(CAPPED);
    assert_eq!((refused.status, refused.code().as_str()), (503, "budget_lease_unavailable"));
    stack.control.resume();
    // How soon is a matter of the pauses between attempts, which `control` tests without a clock.
    wait_for("a lease", || stack.chat(CAPPED).status == 200);
}

#[test]
fn a_lease_granted_while_the_gateway_stops_is_returned_too() {
    let mut stack = stack(1_000_000, vec![price()]);
    assert_eq!(stack.chat(CAPPED).status, 200);
    stack.control.hold_lease_answers(true);
    let refused = stack.chat(&CAPPED.replace("100", "500000"));
    assert_eq!((refused.status, refused.code().as_str()), (503, "budget_lease_unavailable"), "its lease is granted, but not yet answered");
    wait_for("a second lease", || stack.control.leases().len() == 2);
    stack.gateway.terminate();
    let open = |stack: &Stack| stack.control.leases().iter().filter(|(_, lease)| lease.closed_nano.is_none()).count();
    wait_for("the stopping gateway returns the first", || open(&stack) == 1);
    stack.control.hold_lease_answers(false);
    assert!(stack.gateway.wait_end().success());
    assert_eq!((open(&stack), stack.control.counted_nano("b")), (0, COST));
}

#[test]
fn a_caller_who_leaves_is_charged_at_the_bound_for_what_nobody_counted() {
    let stack = stack(1_000_000, vec![price()]);
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::Send(frame("b")), Step::UntilGone]);
    let body = STREAM_BODY.replace("{\"model\"", "{\"max_tokens\":100,\"model\"");
    let mut client = stack.open(&body);
    let head = client.head();
    let _frame = client.chunk().unwrap();
    drop(client);
    let record = stack.usage(&head);
    assert_eq!(record.usage_source(), UsageSource::Estimated);
    assert_eq!(used(&record), bound(&body, 0) + i64::try_from(record.output_tokens).unwrap(), "its input at the bound, its output as counted");
    // Of an answer that never began nothing is known.
    stack.upstream.respond(|_| vec![Step::UntilGone]);
    let received = stack.upstream.count();
    let client = stack.open(CAPPED);
    wait_for("the upstream has it", || stack.upstream.count() > received);
    drop(client);
    let find = || stack.control.usage().into_iter().find(|record| record.usage_source() == UsageSource::Reserved);
    wait_for("its record", || find().is_some());
    assert_eq!(used(&find().unwrap()), bound(CAPPED, 100));
}

#[test]
fn what_was_running_when_a_gateway_died_stays_charged_as_reserved_until_its_log_has_shipped() {
    let mut stack = stack(1_000_000, vec![price()]);
    assert_eq!(stack.chat(CAPPED).status, 200);
    stack.upstream.respond(|_| vec![Step::UntilGone]);
    let received = stack.upstream.count();
    let _running = stack.open(CAPPED);
    wait_for("the upstream has it", || stack.upstream.count() > received);
    stack.gateway.kill();
    let lease = stack.control.leases()[0].1.clone();
    assert_eq!(stack.control.counted_nano("b"), lease.amount_nano, "a lease without a closing report counts whole");
    let gateway = stack.setup.start();
    wait_for("the log has shipped and the lease is closed", || stack.control.leases()[0].1.closed_nano.is_some());
    assert_eq!(stack.control.counted_nano("b"), COST + bound(CAPPED, 100));
    let record = stack.control.usage().into_iter().find(|record| record.usage_source() == UsageSource::Reserved).unwrap();
    assert_eq!(record.process_id, lease.process_id);
    drop(gateway);
}

#[test]
fn a_gateway_that_stops_gives_back_what_it_has_not_spent() {
    let mut stack = stack(1_000_000, vec![price()]);
    assert_eq!(stack.chat(CAPPED).status, 200);
    stack.gateway.terminate();
    assert!(stack.gateway.wait_end().success());
    assert_eq!(stack.control.counted_nano("b"), COST);
}

/// Three gateways spend one budget while they are killed, cut off from the control plane and started again.
#[test]
fn a_hard_budget_is_never_overspent() {
    const CALLS: i64 = 150;
    let amount = CALLS * COST + 4 * bound(CAPPED, 100);
    let stack = stack(amount, vec![price()]);
    stack.upstream.respond(|_| vec![Step::Wait(Duration::from_millis(2)), Step::Send(json_answer(200, ANSWER))]);
    let setups: Vec<Setup> = (0..3).map(|_| setup(&stack.control)).collect();
    let mut gateways: Vec<Gateway> = setups.iter().map(Setup::start).collect();
    let addresses: Vec<_> = gateways.iter().map(|gateway| gateway.address).collect();
    let until = Instant::now() + Duration::from_secs(9);
    let callers: Vec<_> = addresses
        .iter()
        .map(|address| {
            let (address, key) = (*address, stack.key.text.clone());
            std::thread::spawn(move || {
                while Instant::now() < until {
                    call_once(address, &key)
                }
            })
        })
        .collect();
    let mut control = stack.control.clone();
    let mut round = 0;
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(400));
        let victim = round % gateways.len();
        if round % 4 == 3 {
            control.stop();
            std::thread::sleep(Duration::from_millis(300));
            control.resume();
        } else {
            gateways[victim].kill();
            gateways[victim] = setups[victim].spawn();
        }
        round += 1;
        let upstream = i64::try_from(stack.upstream.count()).unwrap() * COST;
        assert!(upstream <= amount, "{upstream} of {amount} after {round} rounds");
    }
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    wait_for("everything has shipped", || gateways.iter().all(|gateway| gateway.metric("tenon_gateway_wal_backlog_records") == 0.0));
    let charged: i64 = stack.control.usage().iter().map(used).sum();
    let used_nano = i64::try_from(stack.upstream.count()).unwrap() * COST;
    assert!(used_nano <= charged && charged <= amount, "used {used_nano}, charged {charged}, of {amount}");
    assert!(stack.control.counted_nano("b") <= amount);
    assert!(charged > amount / 3, "most of it could be spent: {charged} of {amount}");
}

fn call_once(address: std::net::SocketAddr, key: &str) {
    let called = std::panic::catch_unwind(|| post(address, CHAT, key, CAPPED).status);
    if called.is_err() || called.is_ok_and(|status| status != 200) {
        std::thread::sleep(Duration::from_millis(20));
    }
}
