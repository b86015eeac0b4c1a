//! A control plane for benchmarks: `tenon-testkit <control address> <upstream URL>`.
//!
//! Prints one key that may call the model `m`, then, for each line on standard input, how many usage records it holds. Ends with its input.
#![allow(clippy::expect_used)]

use std::io::BufRead;
use tenon_contract::{Endpoint, Model, Route, RoutingTable};
use tenon_testkit::{Control, TestKey};

const TENANT: &str = "019a0000-0000-7000-8000-0000000000a1";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().and_then(|text| text.parse().ok()).expect("first argument: the control address");
    let base_url = arguments.next().expect("second argument: the upstream's URL");
    let control = Control::start_at(address);
    control.keep_ids_only();
    let key = TestKey::new("benchbench", TENANT);
    control.put_key(key.record);
    let endpoint_id = "019a0000-0000-7000-8000-0000000000e1".to_owned();
    let routes = vec![Route { endpoint_id: endpoint_id.clone(), ..Route::default() }];
    control.put_routing(RoutingTable {
        tenant_id: TENANT.into(),
        endpoints: vec![Endpoint { endpoint_id, base_url, ..Endpoint::default() }],
        models: vec![Model { name: "m".into(), routes, ..Default::default() }],
        ..RoutingTable::default()
    });
    println!("{}", key.text);
    for _ in std::io::stdin().lock().lines() {
        println!("{}", control.usage_count());
    }
}
