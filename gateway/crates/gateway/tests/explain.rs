//! Why did that call go there? Asked by request id, by the tenant's own keys and by the operator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::Value;
use support::{ANSWER, BODY, CHAT, House, TENANT, endpoint, limit, model, table};
use tenon_contract::{Governance, KeyKind, Model, Priority, Route, Strategy, Subject};
use tenon_testkit::{Answer, Client, Step, TestKey, Upstream, get, json_answer, wait_for};

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

/// Two endpoints that answer, and one where nobody is.
fn serve(house: &House, other: &Upstream, change: impl FnOnce(&mut Model)) {
    let mut routed = model("m", "e1");
    routed.routes = ["e1", "e2", "dead"].map(|id| Route { endpoint_id: id.into(), weight: 1, ..Route::default() }).to_vec();
    change(&mut routed);
    let endpoints = vec![endpoint("e1", &house.upstream.url()), endpoint("e2", &other.url()), endpoint("dead", "http://127.0.0.1:9/v1")];
    house.gateway.wait_revision(house.control.put_routing(table(endpoints, vec![routed])));
}

fn told_of(house: &House, answer: &Answer) -> Value {
    let id = answer.request_id();
    wait_for("the call ends", || explain(house, &house.key, &id).status == 200);
    explain(house, &house.key, &id).json()
}

fn good() -> Upstream {
    Upstream::start(|_| vec![Step::Send(json_answer(200, ANSWER))])
}

#[test]
fn an_endpoint_that_rests_is_said_to_rest_and_every_route_has_its_tier() {
    let (house, other) = (House::new(), good());
    let mut urgent = house.key.record.clone();
    urgent.priority = Priority::High as i32;
    house.gateway.wait_revision(house.control.put_key(urgent));
    serve(&house, &other, |model| (0..3).for_each(|i| model.routes[i].tier = [1, 2, 0][i]));
    // Three failed connections open the breaker.
    (0..3).for_each(|_| assert_eq!(house.chat(BODY).status, 200));
    let told = told_of(&house, &house.chat(BODY));
    let route = &told["route"];
    let of = |index: usize, member: &str| route["candidates"][index][member].clone();
    assert_eq!([of(0, "verdict"), of(1, "verdict"), of(2, "verdict")], ["chosen", "higher_tier", "resting"]);
    assert_eq!([of(0, "tier"), of(1, "tier"), of(2, "tier")], [1, 2, 0]);
    assert_eq!([of(0, "state"), of(2, "state")], ["well", "breaker_open"]);
    assert_eq!((of(2, "score"), &route["tier"], &told["priority"], &told["attempts_total"]), (Value::Null, &1.into(), &"high".into(), &1.into()));
    // With nobody left but who rests, the least ill is tried.
    let mut alone = model("m", "dead");
    alone.routes.push(alone.routes[0].clone());
    house.gateway.wait_revision(house.control.put_routing(table(vec![endpoint("dead", "http://127.0.0.1:9/v1")], vec![alone])));
    let told = told_of(&house, &house.chat(BODY));
    assert_eq!((&told["route"]["why"], &told["code"]), (&"least_ill".into(), &"upstream_unreachable".into()));
}

#[test]
fn each_strategy_tells_what_it_went_by() {
    let (house, other) = (House::new(), good());
    let call = |session: &str| {
        let headers = [("authorization", &*format!("Bearer {}", house.key.text)), ("x-session-id", session)];
        Client::post(house.gateway.address, CHAT, &headers, BODY).finish()
    };
    let two = |strategy: Strategy| {
        serve(&house, &other, |model| {
            model.strategy = strategy as i32;
            model.routes.truncate(2);
            model.routes[0].weight = 3;
            (model.routes[0].input_cost_nano_per_million, model.routes[1].input_cost_nano_per_million) = (2_000_000, 1_000_000);
        });
        call("a"); // so that something is known of latency
        call("b");
        let told = told_of(&house, &call("a"));
        let candidates = told["route"]["candidates"].as_array().unwrap().clone();
        let chosen = candidates.iter().position(|one| one["verdict"] == "chosen").unwrap();
        assert_eq!(told["route"]["score"], candidates[chosen]["score"]);
        let scores: Vec<Option<f64>> = candidates.iter().map(|one| one["score"].as_f64()).collect();
        assert!(candidates.iter().all(|one| one["running"] == 0 && one["state"] == "well"), "{candidates:?}");
        (told["route"]["why"].as_str().unwrap().to_owned(), told["route"]["by_affinity"].clone(), chosen, scores)
    };
    let (why, affinity, _, scores) = two(Strategy::Weighted);
    assert_eq!((why.as_str(), affinity, scores), ("weighted", Value::Null, vec![Some(0.75), Some(0.25)]));
    let (why, _, chosen, scores) = two(Strategy::LeastOutstanding);
    assert_eq!((why.as_str(), chosen, scores[1]), ("least_outstanding", 0, Some(1.0)));
    let (why, _, chosen, scores) = two(Strategy::Cost);
    let input = scores[1].unwrap();
    assert_eq!((why.as_str(), chosen, scores[0]), ("cost", 1, Some(2.0 * input)));
    assert!((input - BODY.len() as f64 / 4.0).abs() < 1.0, "nano-units for its input: {input}");
    for (strategy, name) in [(Strategy::Session, "session"), (Strategy::Prefix, "prefix")] {
        let (why, affinity, chosen, scores) = two(strategy);
        assert_eq!((why.as_str(), affinity), (name, true.into()));
        assert!(scores[chosen] < scores[1 - chosen], "{scores:?}");
    }
    let (why, _, chosen, scores) = two(Strategy::Engine);
    assert!(why == "engine" && chosen == 0 && scores[0] < scores[1], "without figures our own calls for their weight: {scores:?}");
    assert_eq!(two(Strategy::Latency).0, "latency");
    let told = told_of(&house, &call("a"));
    let known = told["route"]["candidates"].as_array().unwrap().iter().filter(|one| one["first_token_us"].as_f64().is_some()).count();
    assert!(known >= 1, "{told}");
}

#[test]
fn a_limit_and_a_queue_are_told_with_their_numbers() {
    let (house, other) = (House::new(), good());
    let limits = vec![limit("l", Subject::Key, &house.key.record.key_id, 1, 0, 0)];
    let govern = |limits| {
        house.gateway.wait_revision(house.control.put_governance(Governance { tenant_id: TENANT.into(), limits, ..Governance::default() }));
        wait_for("the shares arrive", || house.gateway.metric("tenon_gateway_limits_without_share") == 0.0);
    };
    govern(limits);
    assert_eq!(house.chat(BODY).status, 200);
    let told = told_of(&house, &house.chat(BODY));
    let limit = &told["limit"];
    assert_eq!((&limit["kind"], &limit["subject"], &limit["limit"]), (&"requests_per_minute".into(), &"key".into(), &1.into()));
    assert!(limit["retry_after_seconds"].as_u64().unwrap() > 50 && limit["remaining"] == 0, "{limit}");
    govern(vec![]);
    // Both are full: who waits in vain is told of both.
    [&house.upstream, &other].into_iter().for_each(|upstream| upstream.say(|_| vec![Step::UntilGone]));
    let mut routed = model("m", "e1");
    routed.routes.push(Route { endpoint_id: "e2".into(), weight: 1, ..Route::default() });
    routed.queue_timeout_ms = 100;
    let mut endpoints = vec![endpoint("e1", &house.upstream.url()), endpoint("e2", &other.url())];
    endpoints.iter_mut().for_each(|endpoint| endpoint.concurrency_max = 1);
    house.gateway.wait_revision(house.control.put_routing(table(endpoints, vec![routed])));
    let before = house.upstream.count() + other.count();
    let _held = [house.open(BODY), house.open(BODY)];
    wait_for("both run", || house.upstream.count() + other.count() == before + 2);
    let told = told_of(&house, &house.chat(BODY));
    assert_eq!((&told["code"], &told["model"]), (&"queue_timeout".into(), &"m".into()));
    let candidates = told["route"]["candidates"].as_array().unwrap();
    assert!(candidates.iter().all(|one| one["verdict"] == "saturated" && one["running"] == 1), "{candidates:?}");
    assert!(told["timings"]["queued_us"].as_u64().unwrap() >= 100_000);
}
