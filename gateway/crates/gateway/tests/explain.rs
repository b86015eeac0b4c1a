//! Explanations of calls: requested by request id, by the tenant's own keys and by the operator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::Value;
use support::{ANSWER, BODY, CHAT, Stack, TENANT, endpoint, limit, model, table};
use tenon_contract::{Governance, KeyKind, Model, Priority, Route, Strategy, Subject};
use tenon_testkit::{Answer, Client, Step, TestKey, Upstream, get, json_answer, wait_for};

fn explain(stack: &Stack, key: &TestKey, id: &str) -> Answer {
    get(stack.gateway.address, &format!("/v1/requests/{id}/explain"), &key.text)
}

#[test]
fn a_call_is_explained_to_its_tenant_and_the_operator_alone() {
    let stack = Stack::new();
    let id = stack.chat(BODY).request_id();
    wait_for("the call ends", || explain(&stack, &stack.key, &id).status == 200);
    let explanation = explain(&stack, &stack.key, &id).json();
    assert_eq!((&explanation["request_id"], &explanation["outcome"], &explanation["model"]), (&id.clone().into(), &"completed".into(), &"m".into()));
    assert_eq!(explanation["route"]["candidates"][0]["verdict"], "chosen");
    assert_eq!((&explanation["attempts"][0]["status"], &explanation["attempts"][0]["endpoint_id"]), (&200.into(), &"e1".into()));
    assert_eq!((&explanation["usage"]["input_tokens"], &explanation["usage"]["source"]), (&11.into(), &"engine".into()));
    assert!(explanation["timings"]["duration_us"].as_u64().unwrap() > 0);

    let stranger = TestKey::new("stranger01", "another tenant");
    let colleague = TestKey::new("colleague1", support::TENANT);
    let session = TestKey::new("session001", support::TENANT).with(|record| {
        record.kind = KeyKind::Session as i32;
        record.session_id = "a run".into();
    });
    [&stranger, &colleague, &session].into_iter().for_each(|key| stack.put_key(key));
    assert_eq!(explain(&stack, &colleague, &id).status, 200);
    assert_eq!((explain(&stack, &stranger, &id).status, explain(&stack, &stranger, &id).code()), (404, "unknown_request".to_owned()));
    assert_eq!(explain(&stack, &session, &id).status, 404, "an agent's run sees its own calls alone");
    assert_eq!(get(stack.gateway.address, &format!("/v1/requests/{id}/explain"), "").status, 401);
    assert_eq!(explain(&stack, &stack.key, "nonsense").status, 404);
    assert_eq!(get(stack.gateway.admin, &format!("/explain/{id}"), "").status, 200);
}

#[test]
fn failover_shows_every_attempt() {
    let stack = Stack::new();
    let dead = tenon_testkit::unused_address();
    let mut routed = model("m", "e1");
    routed.routes.push(Route { endpoint_id: "dead".into(), weight: 1_000_000, ..Route::default() });
    let endpoints = vec![endpoint("e1", &stack.upstream.url()), endpoint("dead", &format!("http://{dead}/v1"))];
    stack.gateway.wait_revision(stack.control.put_routing(table(endpoints, vec![routed])));
    let id = stack.chat(BODY).request_id();
    wait_for("the call ends", || explain(&stack, &stack.key, &id).status == 200);
    let explanation = explain(&stack, &stack.key, &id).json();
    assert_eq!((&explanation["attempts"][0]["endpoint_id"], &explanation["attempts"][0]["code"]), (&"dead".into(), &"upstream_unreachable".into()));
    assert_eq!((&explanation["attempts"][1]["endpoint_id"], &explanation["attempts"][1]["code"]), (&"e1".into(), &serde_json::Value::Null));
    assert_eq!(
        (&explanation["route"]["candidates"][0]["verdict"], &explanation["route"]["candidates"][1]["verdict"]),
        (&"chosen".into(), &"tried".into())
    );
    assert_eq!(explanation["attempts_total"], 2);
}

#[test]
fn old_calls_are_forgotten() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_EXPLAIN_CALLS", 4).with("TENON_GATEWAY_THREADS", 1));
    let first = stack.chat(BODY).request_id();
    wait_for("the call ends", || explain(&stack, &stack.key, &first).status == 200);
    (0..5).for_each(|_| assert_eq!(stack.chat(BODY).status, 200));
    wait_for("the call is forgotten", || explain(&stack, &stack.key, &first).status == 404);
}

/// Two endpoints that answer, and one that is unreachable.
fn serve(stack: &Stack, other: &Upstream, change: impl FnOnce(&mut Model)) {
    let mut routed = model("m", "e1");
    routed.routes = ["e1", "e2", "dead"].map(|id| Route { endpoint_id: id.into(), weight: 1, ..Route::default() }).to_vec();
    change(&mut routed);
    let endpoints = vec![endpoint("e1", &stack.upstream.url()), endpoint("e2", &other.url()), endpoint("dead", "http://127.0.0.1:9/v1")];
    stack.gateway.wait_revision(stack.control.put_routing(table(endpoints, vec![routed])));
}

fn explanation_of(stack: &Stack, answer: &Answer) -> Value {
    let id = answer.request_id();
    wait_for("the call ends", || explain(stack, &stack.key, &id).status == 200);
    explain(stack, &stack.key, &id).json()
}

fn good() -> Upstream {
    Upstream::start(|_| vec![Step::Send(json_answer(200, ANSWER))])
}

#[test]
fn an_unhealthy_endpoint_and_every_tier_are_explained() {
    let (stack, other) = (Stack::new(), good());
    let mut urgent = stack.key.record.clone();
    urgent.priority = Priority::High as i32;
    stack.gateway.wait_revision(stack.control.put_key(urgent));
    serve(&stack, &other, |model| (0..3).for_each(|i| model.routes[i].tier = [1, 2, 0][i]));
    // Three failed connections open the breaker.
    (0..3).for_each(|_| assert_eq!(stack.chat(BODY).status, 200));
    let explanation = explanation_of(&stack, &stack.chat(BODY));
    let route = &explanation["route"];
    let of = |index: usize, member: &str| route["candidates"][index][member].clone();
    assert_eq!([of(0, "verdict"), of(1, "verdict"), of(2, "verdict")], ["chosen", "higher_tier", "unhealthy"]);
    assert_eq!([of(0, "tier"), of(1, "tier"), of(2, "tier")], [1, 2, 0]);
    assert_eq!([of(0, "state"), of(2, "state")], ["healthy", "breaker_open"]);
    assert_eq!(
        (of(2, "score"), &route["tier"], &explanation["priority"], &explanation["attempts_total"]),
        (Value::Null, &1.into(), &"high".into(), &1.into())
    );
    // When every endpoint is unhealthy, the one that recovers first is tried.
    let mut alone = model("m", "dead");
    alone.routes.push(alone.routes[0].clone());
    stack.gateway.wait_revision(stack.control.put_routing(table(vec![endpoint("dead", "http://127.0.0.1:9/v1")], vec![alone])));
    let explanation = explanation_of(&stack, &stack.chat(BODY));
    assert_eq!((&explanation["route"]["why"], &explanation["code"]), (&"least_unhealthy".into(), &"upstream_unreachable".into()));
}

#[test]
fn each_strategy_explains_its_choice() {
    let (stack, other) = (Stack::new(), good());
    let call = |session: &str| {
        let headers = [("authorization", &*format!("Bearer {}", stack.key.text)), ("x-session-id", session)];
        Client::post(stack.gateway.address, CHAT, &headers, BODY).finish()
    };
    let two = |strategy: Strategy| {
        serve(&stack, &other, |model| {
            model.strategy = strategy as i32;
            model.routes.truncate(2);
            model.routes[0].weight = 3;
            (model.routes[0].input_cost_nano_per_million, model.routes[1].input_cost_nano_per_million) = (2_000_000, 1_000_000);
        });
        call("a"); // so that something is known of latency
        call("b");
        let explanation = explanation_of(&stack, &call("a"));
        let candidates = explanation["route"]["candidates"].as_array().unwrap().clone();
        let chosen = candidates.iter().position(|one| one["verdict"] == "chosen").unwrap();
        assert_eq!(explanation["route"]["score"], candidates[chosen]["score"]);
        let scores: Vec<Option<f64>> = candidates.iter().map(|one| one["score"].as_f64()).collect();
        assert!(candidates.iter().all(|one| one["running"] == 0 && one["state"] == "healthy"), "{candidates:?}");
        (explanation["route"]["why"].as_str().unwrap().to_owned(), explanation["route"]["by_affinity"].clone(), chosen, scores)
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
    let explanation = explanation_of(&stack, &call("a"));
    let known = explanation["route"]["candidates"].as_array().unwrap().iter().filter(|one| one["first_token_us"].as_f64().is_some()).count();
    assert!(known >= 1, "{explanation}");
}

#[test]
fn limits_and_queues_are_explained_with_their_numbers() {
    let (stack, other) = (Stack::new(), good());
    let limits = vec![limit("l", Subject::Key, &stack.key.record.key_id, 1, 0, 0)];
    let govern = |limits| {
        stack.gateway.wait_revision(stack.control.put_governance(Governance { tenant_id: TENANT.into(), limits, ..Governance::default() }));
        wait_for("the shares arrive", || stack.gateway.metric("tenon_gateway_limits_without_share") == 0.0);
    };
    govern(limits);
    assert_eq!(stack.chat(BODY).status, 200);
    let explanation = explanation_of(&stack, &stack.chat(BODY));
    let limit = &explanation["limit"];
    assert_eq!((&limit["kind"], &limit["subject"], &limit["limit"]), (&"requests_per_minute".into(), &"key".into(), &1.into()));
    assert!(limit["retry_after_seconds"].as_u64().unwrap() > 50 && limit["remaining"] == 0, "{limit}");
    govern(vec![]);
    // Both are full: the explanation of a call that waited in vain names both.
    [&stack.upstream, &other].into_iter().for_each(|upstream| upstream.respond(|_| vec![Step::UntilGone]));
    let mut routed = model("m", "e1");
    routed.routes.push(Route { endpoint_id: "e2".into(), weight: 1, ..Route::default() });
    routed.queue_timeout_ms = 100;
    let mut endpoints = vec![endpoint("e1", &stack.upstream.url()), endpoint("e2", &other.url())];
    endpoints.iter_mut().for_each(|endpoint| endpoint.concurrency_max = 1);
    stack.gateway.wait_revision(stack.control.put_routing(table(endpoints, vec![routed])));
    let before = stack.upstream.count() + other.count();
    let _held = [stack.open(BODY), stack.open(BODY)];
    wait_for("both run", || stack.upstream.count() + other.count() == before + 2);
    let explanation = explanation_of(&stack, &stack.chat(BODY));
    assert_eq!((&explanation["code"], &explanation["model"]), (&"queue_timeout".into(), &"m".into()));
    let candidates = explanation["route"]["candidates"].as_array().unwrap();
    assert!(candidates.iter().all(|one| one["verdict"] == "saturated" && one["running"] == 1), "{candidates:?}");
    assert!(explanation["timings"]["queued_us"].as_u64().unwrap() >= 100_000);
}
