//! Why did that call go there? Asked by request id, by the tenant's own keys and by the operator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{BODY, House, endpoint, model, table};
use tenon_contract::{KeyKind, Route};
use tenon_testkit::{Answer, TestKey, get, wait_for};

fn explain(house: &House, key: &TestKey, id: &str) -> Answer {
    get(house.gateway.address, &format!("/v1/requests/{id}/explain"), &key.text)
}

#[test]
fn a_call_is_explained_to_its_tenant_and_the_operator_alone() {
    let house = House::new();
    let id = house.chat(BODY).request_id();
    wait_for("the call ends", || explain(&house, &house.key, &id).status == 200);
    let told = explain(&house, &house.key, &id).json();
    assert_eq!((&told["request_id"], &told["outcome"], &told["model"]), (&id.clone().into(), &"completed".into(), &"m".into()));
    assert_eq!(told["route"]["candidates"][0]["verdict"], "chosen");
    assert_eq!((&told["attempts"][0]["status"], &told["attempts"][0]["endpoint_id"]), (&200.into(), &"e1".into()));
    assert_eq!((&told["usage"]["input_tokens"], &told["usage"]["source"]), (&11.into(), &"engine".into()));
    assert!(told["timings"]["duration_us"].as_u64().unwrap() > 0);

    let stranger = TestKey::new("stranger01", "another tenant");
    let colleague = TestKey::new("colleague1", support::TENANT);
    let session = TestKey::new("session001", support::TENANT).with(|record| {
        record.kind = KeyKind::Session as i32;
        record.session_id = "a run".into();
    });
    [&stranger, &colleague, &session].into_iter().for_each(|key| house.put_key(key));
    assert_eq!(explain(&house, &colleague, &id).status, 200);
    assert_eq!((explain(&house, &stranger, &id).status, explain(&house, &stranger, &id).code()), (404, "unknown_request".to_owned()));
    assert_eq!(explain(&house, &session, &id).status, 404, "an agent's run sees its own calls alone");
    assert_eq!(get(house.gateway.address, &format!("/v1/requests/{id}/explain"), "").status, 401);
    assert_eq!(explain(&house, &house.key, "nonsense").status, 404);
    assert_eq!(get(house.gateway.admin, &format!("/explain/{id}"), "").status, 200);
}

#[test]
fn failover_shows_every_attempt() {
    let house = House::new();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut routed = model("m", "e1");
    routed.routes.push(Route { endpoint_id: "dead".into(), weight: 1_000_000, ..Route::default() });
    let endpoints = vec![endpoint("e1", &house.upstream.url()), endpoint("dead", &format!("http://{dead}/v1"))];
    house.gateway.wait_revision(house.control.put_routing(table(endpoints, vec![routed])));
    let id = house.chat(BODY).request_id();
    wait_for("the call ends", || explain(&house, &house.key, &id).status == 200);
    let told = explain(&house, &house.key, &id).json();
    assert_eq!((&told["attempts"][0]["endpoint_id"], &told["attempts"][0]["code"]), (&"dead".into(), &"upstream_unreachable".into()));
    assert_eq!((&told["attempts"][1]["endpoint_id"], &told["attempts"][1]["code"]), (&"e1".into(), &serde_json::Value::Null));
    assert_eq!((&told["route"]["candidates"][0]["verdict"], &told["route"]["candidates"][1]["verdict"]), (&"chosen".into(), &"tried".into()));
    assert_eq!(told["attempts_total"], 2);
}

#[test]
fn the_ring_forgets() {
    let house = House::with(|setup| setup.with("TENON_GATEWAY_EXPLAIN_CALLS", 4).with("TENON_GATEWAY_THREADS", 1));
    let first = house.chat(BODY).request_id();
    wait_for("the call ends", || explain(&house, &house.key, &first).status == 200);
    (0..5).for_each(|_| assert_eq!(house.chat(BODY).status, 200));
    wait_for("the call is forgotten", || explain(&house, &house.key, &first).status == 404);
}
