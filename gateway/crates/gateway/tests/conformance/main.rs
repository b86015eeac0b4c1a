//! Every policy at every door of the product. A door that is not in the table fails, and so does a cell that differs from what is written.
//!
//! `TENON_GENERATE=1` writes docs/reference/conformance.md; without it the page must be what the run says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod answers;
mod governed;
mod grpc;
mod page;
mod policies;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod world;

use page::{Cell, page};
use policies::{PENDING, POLICIES, Policy};
use rows::{ROWS, Row};
use std::collections::HashMap;
use tenon_contract::UsageRecord;
use world::{Seen, World};

/// A door as the product tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Door {
    method: String,
    path: String,
    operation: String,
    dialect: String,
}

fn doors_of_the_product() -> Vec<Door> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tenon-gateway")).arg("doors").output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |door: &serde_json::Value, name: &str| door[name].as_str().unwrap().to_owned();
    let door = |d: &serde_json::Value| Door {
        method: text(d, "method"),
        path: text(d, "path"),
        operation: text(d, "operation"),
        dialect: text(d, "dialect"),
    };
    told.as_array().unwrap().iter().map(door).collect()
}

/// The doors that no row tests, as sentences.
fn untested(doors: &[Door], rows: &[Row]) -> Vec<String> {
    let tested = |door: &&Door| {
        let is = |row: &&Row| row.method == door.method && row.path == door.path;
        rows.iter().filter(is).any(|row| row.operation == door.operation && row.dialect == door.dialect)
    };
    doors.iter().filter(|door| !tested(door)).map(|d| format!("{} {} ({}, {}) has no row", d.method, d.path, d.operation, d.dialect)).collect()
}

fn rows_of(doors: &[Door]) -> Vec<&'static Row> {
    let has = |method: &str, path: &str| doors.iter().any(|door| door.path == path && door.method == method);
    // A gateway without a door for Anthropic's dialect does not translate.
    ROWS.iter().filter(|row| has(row.method, row.path) && (!row.is_translated() || has("POST", "/v1/messages"))).collect()
}

#[test]
fn every_door_of_the_product_has_a_row() {
    let mut doors = doors_of_the_product();
    assert_eq!(untested(&doors, ROWS), Vec::<String>::new());
    // And a door that somebody wires without telling us is seen.
    let unwired = Door { method: "POST".into(), path: "/v1/backdoor".into(), operation: "chat".into(), dialect: "openai".into() };
    doors.push(unwired);
    assert_eq!(untested(&doors, ROWS), ["POST /v1/backdoor (chat, openai) has no row"]);
    doors.pop();
    let other = Door {
        method: "POST".into(),
        path: "/inference.GRPCInferenceService/ModelConfig".into(),
        operation: "infer".into(),
        dialect: "open_inference".into(),
    };
    doors.push(other);
    assert_eq!(untested(&doors, ROWS).len(), 1);
    doors.pop();
    // As one whose operation changed under its row.
    doors[0].operation = "embedding".into();
    assert_eq!(untested(&doors, ROWS).len(), 1);
}

#[test]
fn every_policy_holds_at_every_door() {
    let rows = rows_of(&doors_of_the_product());
    let world = World::new();
    let seen = std::thread::scope(|scope| {
        let running: Vec<_> = POLICIES.iter().map(|policy| scope.spawn(|| act(&world, policy, &rows))).collect();
        running.into_iter().flat_map(|policy| policy.join().unwrap()).collect::<Vec<_>>()
    });
    world.wait_shipped();
    let cells = judge(&world, seen);
    let (pending, cells): (Vec<_>, Vec<_>) = cells.into_iter().partition(|cell| PENDING.iter().any(|(name, _)| *name == cell.policy.name));
    for (name, room) in PENDING {
        let still = pending.iter().any(|cell| cell.policy.name == *name && difference(cell).is_some());
        assert!(still, "{name} holds at every door now: take it out of PENDING ({room})");
    }
    let wrong: Vec<_> = cells.iter().filter_map(|cell| difference(cell)).collect();
    assert!(wrong.is_empty(), "{} of {} cells differ:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
    println!("{} cells, {} doors, {} policies", cells.len(), rows.len(), POLICIES.len());
    support::checked_page("conformance.md", &page(&rows, &cells));
}

fn act<'a>(world: &World, policy: &'a Policy, rows: &[&'a Row]) -> Vec<(&'a Policy, &'a Row, Seen)> {
    let here = rows.iter().filter(|row| policy.expected(row).is_some());
    here.map(|row| (policy, *row, (policy.act)(world, row))).collect()
}

/// Adds to what callers saw what the control plane and the upstream know of it.
fn judge<'a>(world: &World, seen: Vec<(&'a Policy, &'a Row, Seen)>) -> Vec<Cell<'a>> {
    let mut records: HashMap<String, Vec<UsageRecord>> = HashMap::new();
    world.control.usage().into_iter().for_each(|record| records.entry(record.request_id.clone()).or_default().push(record));
    let cell = |(policy, row, seen): (&'a Policy, &'a Row, Seen)| {
        let recorded = record_text(row, records.get(&seen.id).map_or(&[], |all| &all[..]));
        let asked = match world.asked_for(&seen.id) {
            0 => "upstream not asked".to_owned(),
            1 => "upstream asked".to_owned(),
            times => format!("upstream asked {times} times"),
        };
        Cell { policy, row, seen: format!("{} · {recorded} · {asked}", seen.told) }
    };
    seen.into_iter().map(cell).collect()
}

fn record_text(row: &Row, records: &[UsageRecord]) -> String {
    let [record] = records else {
        return if records.is_empty() { "no record".into() } else { format!("{} RECORDS", records.len()) };
    };
    let outcome = record.outcome().as_str_name().trim_start_matches("OUTCOME_").to_ascii_lowercase();
    let operation = record.operation().as_str_name().trim_start_matches("OPERATION_").to_ascii_lowercase();
    if operation != row.operation || record.streamed != row.streamed {
        return format!("recorded {outcome} of ANOTHER KIND ({operation}, streamed {})", record.streamed);
    }
    let tokens = if outcome == "completed" { format!(" {}+{}", record.input_tokens, record.output_tokens) } else { String::new() };
    format!("recorded {outcome}{tokens}")
}

fn difference(cell: &Cell<'_>) -> Option<String> {
    let expected = cell.policy.expected(cell.row)?;
    (expected != cell.seen).then(|| format!("{} at {}\n  expected {expected}\n  saw      {}", cell.policy.name, cell.row.name(), cell.seen))
}
