//! Every way in which an endpoint can fail: what the caller saw, what was billed, where the call went instead.
//!
//! `TENON_GENERATE=1` writes docs/reference/faults.md; without it the page must be what the run says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod cases;
#[path = "../support/mod.rs"]
mod support;
mod world;

use cases::{ANSWER, Case, all};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{CHAT, DONE, frame, told::told};
use tenon_contract::{Outcome, UsageRecord, UsageSource};
use tenon_testkit::{Answer, Client, wait_for};
use world::{World, model_name};

/// Beyond every deadline of the endpoints.
const PATIENCE: Duration = Duration::from_secs(10);
const WORKERS: usize = 24;
/// (streamed, with another endpoint)
const COLUMNS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

struct Ran {
    case: usize,
    column: usize,
    answer: Answer,
    told: String,
    took: Duration,
}

#[test]
fn what_endpoints_do_is_told_billed_and_rerouted_as_the_page_says() {
    let cases = all();
    let world = World::new(&cases);
    let ran = run(&world, &cases);
    wait_for("nothing runs", || world.gateway.metric("tenon_gateway_calls_running") == 0.0);
    wait_for("all is shipped", || world.gateway.metric("tenon_gateway_wal_backlog_records") == 0.0);
    let mut records: HashMap<String, Vec<UsageRecord>> = HashMap::new();
    world.control.usage().into_iter().for_each(|record| records.entry(record.request_id.clone()).or_default().push(record));
    let mut cells = vec![[const { String::new() }; 4]; cases.len()];
    let mut wrong = Vec::new();
    for ran in &ran {
        let (streamed, _) = COLUMNS[ran.column];
        let recorded = records.get(&ran.answer.request_id()).map_or(&[][..], |all| all);
        let asked = world.asked(ran.case, streamed, &ran.answer.request_id());
        let cell = if cases[ran.case].races() { raced(ran) } else { cell(ran, recorded, asked) };
        wrong.extend(
            broken_rules(ran, streamed, recorded, asked).map(|rule| format!("{} ({:?}): {rule}: {cell}", cases[ran.case].name, COLUMNS[ran.column])),
        );
        cells[ran.case][ran.column] = cell;
    }
    assert!(wrong.is_empty(), "{} calls break a rule:\n{}", wrong.len(), wrong.join("\n"));
    support::checked_page("faults.md", &page(&cases, &cells));
}

fn run(world: &World, cases: &[Case]) -> Vec<Ran> {
    let next = AtomicUsize::new(0);
    let total = cases.len() * COLUMNS.len();
    let work = || {
        std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < total)).map(|n| call(world, cases, n)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn call(world: &World, cases: &[Case], n: usize) -> Ran {
    let (case, column) = (n / COLUMNS.len(), n % COLUMNS.len());
    let (streamed, another) = COLUMNS[column];
    let text = if cases[case].large_request { "y".repeat(8 << 20) } else { "hi".into() };
    let stream = if streamed { r#""stream":true,"# } else { "" };
    let body = format!(r#"{{"model":"{}",{stream}"messages":[{{"role":"user","content":"{text}"}}]}}"#, model_name(case, streamed, another));
    let begun = Instant::now();
    let mut client = Client::post(world.gateway.address, CHAT, &[("x-api-key", &world.key.text)], &body);
    let Ok(mut answer) = client.try_head() else {
        let nothing = Answer { status: 0, headers: Vec::new(), body: Vec::new(), complete: false };
        return Ran { case, column, answer: nothing, told: "no answer".into(), took: begun.elapsed() };
    };
    client.read_body(&mut answer);
    Ran { case, column, told: told("openai", streamed, &answer), took: begun.elapsed(), answer }
}

/// The words of one cell. Tokens stand where some are billed.
fn cell(ran: &Ran, records: &[UsageRecord], asked: (usize, usize)) -> String {
    let mut cell = ran.told.clone();
    for record in records {
        let outcome = record.outcome().as_str_name().trim_start_matches("OUTCOME_").to_ascii_lowercase();
        let source = record.usage_source().as_str_name().trim_start_matches("USAGE_SOURCE_").to_ascii_lowercase();
        let _ = write!(cell, "; billed {}+{} ({source}), {outcome}", record.input_tokens, record.output_tokens);
        if record.endpoint_id == "healthy" {
            cell += ", **rerouted**";
        }
    }
    if asked.0 > 1 {
        let _ = write!(cell, ", asked {} times", asked.0);
    }
    cell
}

/// A connection that ends while the request is on its way: whether it was written already is chance, and so is what it is called.
fn raced(ran: &Ran) -> String {
    match (&*ran.told, COLUMNS[ran.column]) {
        ("502 upstream_error" | "502 upstream_unreachable", (_, false)) => "502 upstream_error or upstream_unreachable; billed nothing".into(),
        (told @ ("200" | "200 stream"), (_, true)) => format!("{told}, **rerouted**"),
        (told, _) => told.to_owned(),
    }
}

/// What must hold whatever the fault.
fn broken_rules(ran: &Ran, streamed: bool, records: &[UsageRecord], asked: (usize, usize)) -> impl Iterator<Item = &'static str> {
    let looks_whole = matches!(&*ran.told, "200" | "200 stream" | "200 but no stream" | "204");
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
        (ran.took > PATIENCE, "the deadlines hold"),
        (ran.told.contains("ends wrongly") || ran.told == "no answer" || ran.told.contains("WRONG"), "a caller is told how it ended, in its dialect"),
        (is(Outcome::Completed) && !looks_whole, "what did not arrive whole is not recorded as completed"),
        (rerouted && is(Outcome::Completed) && !right, "a rerouted answer is the other endpoint's, whole and untouched"),
        (asked.0 > 1 || asked.1 > 1, "no endpoint is asked twice for the same attempt"),
        (record.is_some_and(|r| r.usage_source() == UsageSource::Estimated) && is(Outcome::Completed), "a completed call is not estimated"),
    ];
    rules.into_iter().filter(|(broken, _)| *broken).map(|(_, rule)| rule)
}

fn page(cases: &[Case], cells: &[[String; 4]]) -> String {
    let mut page = HEAD.to_owned();
    for (case, cells) in cases.iter().zip(cells) {
        let _ = writeln!(page, "| {} | {} |", case.name, cells.join(" | "));
    }
    page
}

const HEAD: &str = "# What a failing endpoint does to a call

Written by the fault suite (`gateway/crates/gateway/tests/faults`): a TCP fault proxy or a malformed answer between a gateway process and an
endpoint, called on `POST /v1/chat/completions`. Each cell: what the caller saw; what was billed (input + output tokens, and whose numbers they
are) and the outcome recorded. *Rerouted* calls were answered by the other endpoint, on a model with
`retries_max` 2; without it only what was surely not worked on (no connection, 429, 503) goes elsewhere. Deadlines of the failing endpoint: 500 ms to connect,
1.5 s each for headers, first token and idle, 4 s in all. Whatever the fault: one call has one record, nobody is asked twice for one attempt, an
answer that did not arrive whole never looks whole and is never recorded as completed.

| the endpoint | whole answer | stream | whole answer, another endpoint beside it | stream, another endpoint beside it |
|---|---|---|---|---|
";
