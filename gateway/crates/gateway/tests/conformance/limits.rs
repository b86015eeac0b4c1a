//! Limits and budgets: one of each for each row's own key, so that no cell uses up another's.

use crate::grpc;
use crate::rows::{ROWS, Row};
use crate::stack::{Outcome, Stack, key_id};
use crate::support::TENANT;
use std::time::{Duration, Instant};
use tenon_contract::{Budget, BudgetMode, Governance, Limit, Price, Subject};
use tenon_testkit::Control;

const CURRENCY: &str = "EUR";

/// A limit of one key.
fn limit(policy: &str, row: &Row) -> Limit {
    let id = key_id(policy, row);
    Limit { limit_id: format!("limit-{id}"), subject: Subject::Key as i32, subject_id: id, ..Limit::default() }
}

/// A hard budget of one key with this amount.
fn budget(control: &Control, policy: &str, row: &Row, nano: i64) -> Budget {
    let id = key_id(policy, row);
    let budget_id = format!("budget-{id}");
    control.set_budget(&budget_id, nano);
    let mode = BudgetMode::Hard as i32;
    Budget { budget_id, subject: Subject::Key as i32, subject_id: id, mode, currency: CURRENCY.into(), also_keys: Vec::new() }
}

fn price(model: &str) -> Price {
    let nano = 1_000_000_000;
    Price {
        price_id: format!("price-{model}"),
        model: model.into(),
        currency: CURRENCY.into(),
        input_nano_per_million: nano,
        output_nano_per_million: nano,
        request_nano: 1_000,
        ..Price::default()
    }
}

pub fn governance(control: &Control) -> Governance {
    let calls = || ROWS.iter().filter(|row| row.is_call());
    let limits = calls().flat_map(|row| {
        [
            Limit { requests_per_minute: 1, ..limit("limreqs", row) },
            Limit { tokens_per_minute: 1, ..limit("limtoks", row) },
            Limit { concurrency: 1, ..limit("limcall", row) },
        ]
    });
    let budgets = calls().flat_map(|row| [budget(control, "budgone", row, 1), budget(control, "nopricy", row, 1 << 40)]);
    let prices = ["good.openai", "good.anthropic", "good.open_inference"].map(price).to_vec();
    Governance { tenant_id: TENANT.into(), limits: limits.collect(), budgets: budgets.collect(), prices, ..Governance::default() }
}

/// Calls until one is admitted, because the gateway may not have its share of the limit yet; then once more.
fn once_more(stack: &Stack, row: &Row, policy: &str) -> Outcome {
    let key = stack.make_key(&key_id(policy, row), |_| {});
    let deadline = Instant::now() + Duration::from_secs(10);
    while stack.call(row, &key.text, "good").summary != row.begins() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    stack.call(row, &key.text, "good")
}

pub fn requests_reached(stack: &Stack, row: &Row) -> Outcome {
    once_more(stack, row, "limreqs")
}

/// The first call has used more than the limit holds.
pub fn tokens_reached(stack: &Stack, row: &Row) -> Outcome {
    once_more(stack, row, "limtoks")
}

pub fn calls_reached(stack: &Stack, row: &Row) -> Outcome {
    let key = stack.make_key(&key_id("limcall", row), |_| {});
    if row.is_grpc() {
        return grpc::beside_a_running_call(stack, row, &key.text);
    }
    let (running, _) = stack.open_running(row, &key.text, "occupy");
    let outcome = stack.call(row, &key.text, "good");
    drop(running);
    outcome
}

pub fn budget_spent(stack: &Stack, row: &Row) -> Outcome {
    let key = stack.make_key(&key_id("budgone", row), |_| {});
    stack.call(row, &key.text, "good")
}

pub fn not_priced(stack: &Stack, row: &Row) -> Outcome {
    let key = stack.make_key(&key_id("nopricy", row), |_| {});
    stack.call(row, &key.text, "hold")
}
