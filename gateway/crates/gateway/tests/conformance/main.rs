//! Every policy at every route of the product. A route without a row fails, and so does a cell with an unexpected outcome.
//!
//! `TENON_GENERATE=1` writes docs/reference/conformance.md; without it the page must equal the results.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod upstream_script;
mod limits;
mod grpc;
mod page;
mod policies;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod stack;

use page::{Cell, page};
use policies::{PENDING, POLICIES, Policy};
use rows::{ROWS, Row};
use stack::{Outcome, Stack};
use std::collections::HashMap;
use tenon_contract::UsageRecord;

/// A route as the product lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    method: String,
    path: String,
    operation: String,
    dialect: String,
}

fn routes_of_the_product() -> Vec<Route> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tenon-gateway")).arg("routes").output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |route: &serde_json::Value, name: &str| route[name].as_str().unwrap().to_owned();
    let route = |listed: &serde_json::Value| Route {
        method: text(listed, "method"),
        path: text(listed, "path"),
        operation: text(listed, "operation"),
        dialect: text(listed, "dialect"),
    };
    listed.as_array().unwrap().iter().map(route).collect()
}

/// The routes without a row, as sentences.
fn untested(routes: &[Route], rows: &[Row]) -> Vec<String> {
    let tested = |route: &&Route| {
        let is = |row: &&Row| row.method == route.method && row.path == route.path;
        rows.iter().filter(is).any(|row| row.operation == route.operation && row.dialect == route.dialect)
    };
    routes.iter().filter(|route| !tested(route)).map(|r| format!("{} {} ({}, {}) has no row", r.method, r.path, r.operation, r.dialect)).collect()
}

fn rows_of(routes: &[Route]) -> Vec<&'static Row> {
    let has = |method: &str, path: &str| routes.iter().any(|route| route.path == path && route.method == method);
    // A gateway without a route for Anthropic's dialect does not translate.
    ROWS.iter().filter(|row| has(row.method, row.path) && (!row.is_translated() || has("POST", "/v1/messages"))).collect()
}

#[test]
fn every_route_of_the_product_has_a_row() {
    let mut routes = routes_of_the_product();
    assert_eq!(untested(&routes, ROWS), Vec::<String>::new());
    // A new route without a row is found.
    let unwired = Route { method: "POST".into(), path: "/v1/backdoor".into(), operation: "chat".into(), dialect: "openai".into() };
    routes.push(unwired);
    assert_eq!(untested(&routes, ROWS), ["POST /v1/backdoor (chat, openai) has no row"]);
    routes.pop();
    let other = Route {
        method: "POST".into(),
        path: "/inference.GRPCInferenceService/ModelConfig".into(),
        operation: "infer".into(),
        dialect: "open_inference".into(),
    };
    routes.push(other);
    assert_eq!(untested(&routes, ROWS).len(), 1);
    routes.pop();
    // So is one whose operation no longer fits its row.
    routes[0].operation = "embedding".into();
    assert_eq!(untested(&routes, ROWS).len(), 1);
}

#[test]
fn every_policy_holds_at_every_route() {
    let rows = rows_of(&routes_of_the_product());
    let stack = Stack::new();
    let outcomes = std::thread::scope(|scope| {
        let running: Vec<_> = POLICIES.iter().map(|policy| scope.spawn(|| run(&stack, policy, &rows))).collect();
        running.into_iter().flat_map(|policy| policy.join().unwrap()).collect::<Vec<_>>()
    });
    stack.wait_shipped();
    let cells = cells(&stack, outcomes);
    let (pending, cells): (Vec<_>, Vec<_>) = cells.into_iter().partition(|cell| PENDING.iter().any(|(name, _)| *name == cell.policy.name));
    for (name, owner) in PENDING {
        let still = pending.iter().any(|cell| cell.policy.name == *name && difference(cell).is_some());
        assert!(still, "{name} holds at every route now: remove it from PENDING ({owner})");
    }
    let wrong: Vec<_> = cells.iter().filter_map(|cell| difference(cell)).collect();
    assert!(wrong.is_empty(), "{} of {} cells differ:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
    println!("{} cells, {} rows, {} policies", cells.len(), rows.len(), POLICIES.len());
    support::checked_page("conformance.md", &page(&rows, &cells));
}

fn run<'a>(stack: &Stack, policy: &'a Policy, rows: &[&'a Row]) -> Vec<(&'a Policy, &'a Row, Outcome)> {
    let here = rows.iter().filter(|row| policy.expected(row).is_some());
    here.map(|row| (policy, *row, (policy.run)(stack, row))).collect()
}

/// Adds the usage records and the upstream's requests to the callers' outcomes.
fn cells<'a>(stack: &Stack, outcomes: Vec<(&'a Policy, &'a Row, Outcome)>) -> Vec<Cell<'a>> {
    let mut records: HashMap<String, Vec<UsageRecord>> = HashMap::new();
    stack.control.usage().into_iter().for_each(|record| records.entry(record.request_id.clone()).or_default().push(record));
    let cell = |(policy, row, outcome): (&'a Policy, &'a Row, Outcome)| {
        let recorded = record_text(row, records.get(&outcome.id).map_or(&[], |all| &all[..]));
        let calls = match stack.received(&outcome.id) {
            0 => "upstream not called".to_owned(),
            1 => "upstream called".to_owned(),
            times => format!("upstream called {times} times"),
        };
        Cell { policy, row, outcome: format!("{} · {recorded} · {calls}", outcome.summary) }
    };
    outcomes.into_iter().map(cell).collect()
}

fn record_text(row: &Row, records: &[UsageRecord]) -> String {
    let [record] = records else {
        return if records.is_empty() { "no record".into() } else { format!("{} RECORDS", records.len()) };
    };
    let outcome = record.outcome().as_str_name().trim_start_matches("OUTCOME_").to_ascii_lowercase();
    let operation = record.operation().as_str_name().trim_start_matches("OPERATION_").to_ascii_lowercase();
    if operation != row.operation || record.streamed != row.streamed {
        return format!("recorded {outcome} of ANOTHER OPERATION ({operation}, streamed {})", record.streamed);
    }
    let tokens = if outcome == "completed" { format!(" {}+{}", record.input_tokens, record.output_tokens) } else { String::new() };
    format!("recorded {outcome}{tokens}")
}

fn difference(cell: &Cell<'_>) -> Option<String> {
    let expected = cell.policy.expected(cell.row)?;
    (expected != cell.outcome).then(|| format!("{} at {}\n  expected {expected}\n  actual   {}", cell.policy.name, cell.row.name(), cell.outcome))
}
