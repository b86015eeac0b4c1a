//! Every way in which an endpoint can fail: what the caller received, what was billed, where the call was rerouted.
//!
//! `TENON_GENERATE=1` writes docs/reference/faults.md; without it the page must equal the results.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod cases;
#[path = "../support/mod.rs"]
mod support;
mod stack;

use cases::{ANSWER, Case, all};
use stack::{Stack, model_name};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{CHAT, DONE, answer_summary::summary, frame};
use tenon_contract::{Outcome, UsageRecord, UsageSource};
use tenon_testkit::{Answer, Client, wait_for};

/// Longer than every deadline of the endpoints.
const CALL_MAX: Duration = Duration::from_secs(30);
const WORKERS: usize = 24;
/// (streamed, with another endpoint)
const COLUMNS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

struct Call {
    case: usize,
    column: usize,
    answer: Answer,
    summary: String,
    took: Duration,
}

#[test]
fn faults_are_reported_billed_and_rerouted_as_on_the_page() {
    let cases = all();
    let stack = Stack::new(&cases);
    let ran = run(&stack, &cases);
    wait_for("nothing runs", || stack.gateway.metric("tenon_gateway_calls_running") == 0.0);
    wait_for("all is shipped", || stack.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    let mut records: HashMap<String, Vec<UsageRecord>> = HashMap::new();
    stack.control.usage().into_iter().for_each(|record| records.entry(record.request_id.clone()).or_default().push(record));
    let mut cells = vec![[const { String::new() }; 4]; cases.len()];
    let mut wrong = Vec::new();
    for ran in &ran {
        let (streamed, _) = COLUMNS[ran.column];
        let recorded = records.get(&ran.answer.request_id()).map_or(&[][..], |all| all);
        let received = stack.received(ran.case, streamed, &ran.answer.request_id());
        let cell = if cases[ran.case].races() { raced(ran) } else { cell(ran, recorded, received) };
        wrong.extend(
            broken_rules(ran, streamed, recorded, received)
                .map(|rule| format!("{} ({:?}): {rule}: {cell}", cases[ran.case].name, COLUMNS[ran.column])),
        );
        cells[ran.case][ran.column] = cell;
    }
    assert!(wrong.is_empty(), "{} calls break a rule:\n{}", wrong.len(), wrong.join("\n"));
    support::checked_page("faults.md", &page(&cases, &cells));
}

/// Large requests first and by themselves: while a reactor reads one, no other call should wait for its deadline.
fn run(stack: &Stack, cases: &[Case]) -> Vec<Call> {
    let (large, small): (Vec<usize>, Vec<usize>) = (0..cases.len() * COLUMNS.len()).partition(|n| cases[n / COLUMNS.len()].large_request);
    run_all(stack, cases, &large).into_iter().chain(run_all(stack, cases, &small)).collect()
}

fn run_all(stack: &Stack, cases: &[Case], calls: &[usize]) -> Vec<Call> {
    let next = AtomicUsize::new(0);
    let work = || std::iter::from_fn(|| calls.get(next.fetch_add(1, Ordering::Relaxed))).map(|n| call(stack, cases, *n)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn call(stack: &Stack, cases: &[Case], n: usize) -> Call {
    let (case, column) = (n / COLUMNS.len(), n % COLUMNS.len());
    let (streamed, another) = COLUMNS[column];
    let text = if cases[case].large_request { "y".repeat(8 << 20) } else { "hi".into() };
    let stream = if streamed { r#""stream":true,"# } else { "" };
    let body = format!(r#"{{"model":"{}",{stream}"messages":[{{"role":"user","content":"{text}"}}]}}"#, model_name(case, streamed, another));
    stack.begin(case, streamed);
    let begun = Instant::now();
    let mut client = Client::post(stack.gateway.address, CHAT, &[("x-api-key", &stack.key.text)], &body);
    let Ok(mut answer) = client.try_head() else {
        let none = Answer { status: 0, headers: Vec::new(), body: Vec::new(), complete: false };
        return Call { case, column, answer: none, summary: "no answer".into(), took: begun.elapsed() };
    };
    client.read_body(&mut answer);
    Call { case, column, summary: summary("openai", streamed, &answer), took: begun.elapsed(), answer }
}

/// The text of one cell.
fn cell(ran: &Call, records: &[UsageRecord], received: (usize, usize)) -> String {
    let mut cell = ran.summary.clone();
    for record in records {
        let outcome = record.outcome().as_str_name().trim_start_matches("OUTCOME_").to_ascii_lowercase();
        let source = record.usage_source().as_str_name().trim_start_matches("USAGE_SOURCE_").to_ascii_lowercase();
        let _ = write!(cell, "; billed {}+{} ({source}), {outcome}", record.input_tokens, record.output_tokens);
        if record.endpoint_id == "healthy" {
            cell += ", **rerouted**";
        }
    }
    if received.0 > 1 {
        let _ = write!(cell, ", received {} times", received.0);
    }
    cell
}

/// The connection ended while the request was being written. Whether it was written completely is a race, and so is the error code.
fn raced(ran: &Call) -> String {
    match (&*ran.summary, COLUMNS[ran.column]) {
        ("502 upstream_error" | "502 upstream_unreachable", (_, false)) => "502 upstream_error or upstream_unreachable; billed nothing".into(),
        (summary @ ("200" | "200 stream"), (_, true)) => format!("{summary}, **rerouted**"),
        (summary, _) => summary.to_owned(),
    }
}

/// The rules that hold for every fault.
fn broken_rules(ran: &Call, streamed: bool, records: &[UsageRecord], received: (usize, usize)) -> impl Iterator<Item = &'static str> {
    let looks_complete = matches!(&*ran.summary, "200" | "200 stream" | "200 but no stream" | "204");
    let right = if streamed {
        ran.answer.text() == String::from_utf8([frame("a"), frame("b"), DONE.to_vec()].concat()).unwrap()
    } else {
        ran.answer.text() == ANSWER
    };
    let record = records.first();
    let is = |outcome: Outcome| record.is_some_and(|record| record.outcome() == outcome);
    let rerouted = record.is_some_and(|record| record.endpoint_id == "healthy");
    let rules = [
        (records.len() != 1, "one call, one record"),
        (ran.took > CALL_MAX, "the deadlines hold"),
        (
            ran.summary.contains("ends wrongly") || ran.summary == "no answer" || ran.summary.contains("WRONG"),
            "the caller learns how the call ended, in its dialect",
        ),
        (is(Outcome::Completed) && !looks_complete, "an incomplete answer is not recorded as completed"),
        (rerouted && is(Outcome::Completed) && !right, "a rerouted answer is the other endpoint's, complete and unchanged"),
        (received.0 > 1 || received.1 > 1, "no endpoint receives the same attempt twice"),
        (record.is_some_and(|r| r.usage_source() == UsageSource::Estimated) && is(Outcome::Completed), "a completed call is not estimated"),
    ];
    rules.into_iter().filter(|(broken, _)| *broken).map(|(_, rule)| rule)
}

/// A table for each pair of columns: calls without and with another endpoint.
fn page(cases: &[Case], cells: &[[String; 4]]) -> String {
    let mut page = HEAD.to_owned();
    for (title, columns) in [("The endpoint alone", 0..2), ("With another endpoint beside it", 2..4)] {
        let _ = writeln!(page, "\n## {title}\n\n| the endpoint | whole answer | stream |\n|---|---|---|");
        for (case, cells) in cases.iter().zip(cells) {
            let _ = writeln!(page, "| {} | {} |", case.name, cells[columns.clone()].join(" | "));
        }
    }
    page
}

const HEAD: &str = "# What a failing endpoint does to a call

Written by the fault suite (`gateway/crates/gateway/tests/faults`). Between a gateway process and an endpoint it puts a
TCP fault proxy, or the endpoint sends a malformed answer. Calls go to `POST /v1/chat/completions`.

Each cell shows the caller's answer, the billed tokens (input + output, and their source) and the recorded outcome.
*Rerouted* calls were answered by the other endpoint, on a model with `retries_max` 2. Without it, only calls that were
surely not processed (no connection, 429, 503) are rerouted. Deadlines of the failing endpoint: 1 s to connect, 3 s
each for headers, first token and idle, 12 s in total.

For every fault, one call has one record, and no endpoint receives an attempt twice. An incomplete answer never looks
complete and is never recorded as completed.
";
