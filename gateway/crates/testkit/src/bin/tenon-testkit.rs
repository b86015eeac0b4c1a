//! A control plane for benchmarks: `tenon-testkit <control address> <upstream URL> [options]`.
//!
//! Prints one key that may call the model `m`, then, for each line on standard input, how many usage records it holds. Ends with its input.
//! Options:
//!
//! - `--keys <n>`: more keys.
//! - `--scopes`: scopes on the key.
//! - `--limits`: limits on key, project, tenant and model.
//! - `--budget`: a hard budget with a price.
//! - `--routing`: routing by load and health over two endpoints.
//! - `--anthropic`: for an upstream of that API.
#![allow(clippy::expect_used)]

use std::io::BufRead;
use tenon_contract::{Budget, BudgetMode, Endpoint, Governance, Limit, Model, Price, Protocol, Route, RoutingTable, Strategy, Subject};
use tenon_testkit::{Control, TestKey};

const TENANT: &str = "019a0000-0000-7000-8000-0000000000a1";
const ENDPOINTS: [&str; 2] = ["019a0000-0000-7000-8000-0000000000e1", "019a0000-0000-7000-8000-0000000000e2"];
/// More than any load reaches.
const PLENTY: u64 = 1 << 40;

struct Options(Vec<String>);

impl Options {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    fn number(&self, name: &str) -> usize {
        let at = self.0.iter().position(|word| word == name);
        at.and_then(|at| self.0.get(at + 1)?.parse().ok()).unwrap_or(0)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().and_then(|text| text.parse().ok()).expect("first argument: the control address");
    let base_url = arguments.next().expect("second argument: the upstream's URL");
    let options = Options(arguments.collect());
    let control = Control::start_counting_ids_at(address);
    let mut key = TestKey::new("benchbench", TENANT);
    if options.has("--scopes") {
        key.record.allowed_models = vec!["m".into(), "other".into()];
        key.record.allowed_operations = vec!["chat".into(), "embedding".into()];
        key.record.source_networks = vec!["10.0.0.0/8".into(), "127.0.0.0/8".into()];
    }
    for number in 0..options.number("--keys") {
        control.put_key(TestKey::new(&format!("k{number:09}"), TENANT).record);
    }
    control.put_routing(routing(&options, &base_url));
    if options.has("--limits") || options.has("--budget") {
        control.put_governance(governance(&options, &key));
        control.set_budget("budget", i64::MAX / 4);
    }
    control.put_key(key.record);
    println!("{}", key.text);
    for _ in std::io::stdin().lock().lines() {
        println!("{}", control.usage_count());
    }
}

fn routing(options: &Options, base_url: &str) -> RoutingTable {
    let both = options.has("--routing");
    let ids = &ENDPOINTS[..if both { 2 } else { 1 }];
    let protocol = if options.has("--anthropic") { Protocol::Anthropic } else { Protocol::Openai };
    let endpoint = |id: &&str| Endpoint {
        endpoint_id: (*id).into(),
        base_url: base_url.into(),
        protocol: protocol as i32,
        private_network_allowed: true,
        concurrency_max: if both { 10_000 } else { 0 },
        ..Endpoint::default()
    };
    let strategy = if both { Strategy::LeastOutstanding } else { Strategy::Unspecified };
    let routes = ids.iter().map(|id| Route { endpoint_id: (*id).into(), ..Route::default() }).collect();
    RoutingTable {
        tenant_id: TENANT.into(),
        endpoints: ids.iter().map(endpoint).collect(),
        models: vec![Model { name: "m".into(), routes, strategy: strategy as i32, output_tokens_max: 4096, ..Default::default() }],
        ..RoutingTable::default()
    }
}

fn governance(options: &Options, key: &TestKey) -> Governance {
    let record = &key.record;
    let subjects =
        [(Subject::Key, &*record.key_id), (Subject::Project, &*record.project_id), (Subject::Tenant, &*record.tenant_id), (Subject::Model, "m")];
    let limit = |(subject, id): (Subject, &str)| Limit {
        limit_id: format!("limit-{id}"),
        subject: subject as i32,
        subject_id: id.into(),
        requests_per_minute: PLENTY,
        tokens_per_minute: PLENTY,
        concurrency: 1 << 30,
        ..Limit::default()
    };
    let budget = Budget {
        budget_id: "budget".into(),
        subject: Subject::Tenant as i32,
        subject_id: TENANT.into(),
        mode: BudgetMode::Hard as i32,
        currency: "EUR".into(),
        ..Budget::default()
    };
    let price = Price {
        price_id: "price".into(),
        model: "m".into(),
        currency: "EUR".into(),
        input_nano_per_million: 1_000_000,
        output_nano_per_million: 4_000_000,
        ..Price::default()
    };
    let chosen = options.has("--budget");
    Governance {
        tenant_id: TENANT.into(),
        limits: if options.has("--limits") { subjects.map(limit).into() } else { vec![] },
        budgets: chosen.then_some(budget).into_iter().collect(),
        prices: chosen.then_some(price).into_iter().collect(),
        ..Governance::default()
    }
}
