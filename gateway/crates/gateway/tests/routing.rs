//! Which endpoint gets a call: weights, failover, breaker, sessions, saturation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::{ANSWER, BODY, CHAT, STREAM_BODY, Stack, TENANT, endpoint, frame, table};
use tenon_contract::{Endpoint, Engine, Model, Route, Strategy};
use tenon_testkit::{Answer, Client, Step, Upstream, json_answer, sse_head, wait_for};

fn routed(endpoints: &[Endpoint], change: impl FnOnce(&mut Model)) -> Model {
    let routes = endpoints.iter().map(|e| Route { endpoint_id: e.endpoint_id.clone(), weight: 1, ..Route::default() }).collect();
    let mut model = Model { name: "m".into(), routes, ..Model::default() };
    change(&mut model);
    model
}

fn good() -> Upstream {
    Upstream::start(|_| vec![Step::Send(json_answer(200, ANSWER))])
}

fn answering(status: u16, headers: &'static str) -> Upstream {
    Upstream::start(move |_| {
        vec![Step::Send(format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: 2\r\n\r\n{{}}").into_bytes())]
    })
}

fn endpoints(upstreams: &[&Upstream]) -> Vec<Endpoint> {
    upstreams.iter().enumerate().map(|(i, upstream)| endpoint(&format!("e{i}"), &upstream.url())).collect()
}

fn serve(stack: &Stack, endpoints: Vec<Endpoint>, change: impl FnOnce(&mut Model)) {
    let model = routed(&endpoints, change);
    let revision = stack.control.put_routing(table(endpoints, vec![model]));
    stack.gateway.wait_revision(revision);
}

fn call(stack: &Stack, session: &str) -> Answer {
    let headers = [("authorization", &*format!("Bearer {}", stack.key.text)), ("x-session-id", session)];
    Client::post(stack.gateway.address, CHAT, &headers, BODY).finish()
}

#[test]
fn a_call_that_one_endpoint_cannot_take_goes_to_another() {
    let stack = Stack::new();
    let (busy, failing, healthy) = (answering(429, "retry-after: 30\r\n"), answering(503, ""), good());
    let mut tiers = endpoints(&[&busy, &failing, &healthy]);
    tiers.push(endpoint("nobody", "http://127.0.0.1:9/v1"));
    serve(&stack, tiers, |model| (0..4).for_each(|i| model.routes[i].tier = [1, 2, 3, 0][i]));
    let first = call(&stack, "a");
    assert_eq!(first.status, 503, "two retries by default: nobody, then the busy one, then the failing one, and no more: {}", first.text());
    assert_eq!(healthy.count(), 0);
    serve(&stack, endpoints(&[&busy, &healthy]), |model| model.routes[1].tier = 1);
    let before = busy.count();
    assert_eq!(call(&stack, "a").status, 200);
    assert_eq!(busy.count(), before, "it requested a pause and gets it");
    assert!(stack.gateway.metric("tenon_gateway_retries_total{reason=\"connect\"}") >= 1.0);
}

#[test]
fn what_may_have_been_worked_on_is_repeated_only_where_the_operator_says_so() {
    let stack = Stack::new();
    let (failing, healthy) = (answering(500, ""), good());
    let set = |retries_max| {
        serve(&stack, endpoints(&[&failing, &healthy]), |model| {
            model.routes[1].tier = 1;
            model.retries_max = retries_max;
        });
    };
    set(0);
    assert_eq!((call(&stack, "a").status, healthy.count()), (502, 0));
    set(1);
    assert_eq!((call(&stack, "a").status, healthy.count()), (200, 1));
}

#[test]
fn a_callers_fault_opens_no_breaker_and_a_dead_endpoint_is_left_alone() {
    let stack = Stack::new();
    let (strict, dead, healthy) = (answering(400, ""), answering(500, ""), good());
    serve(&stack, endpoints(&[&strict]), |_| ());
    (0..30).for_each(|_| assert_eq!(call(&stack, "a").status, 400));
    assert_eq!(strict.count(), 30);
    serve(&stack, endpoints(&[&dead, &healthy]), |model| {
        model.retries_max = 1;
        model.routes[1].tier = 1;
    });
    (0..40).for_each(|_| assert_eq!(call(&stack, "a").status, 200));
    assert!(dead.count() <= 12, "its breaker opened: {}", dead.count());
}

#[test]
fn sessions_stay_where_they_are() {
    let stack = Stack::new();
    let upstreams = [good(), good(), good()];
    serve(&stack, endpoints(&upstreams.each_ref()), |model| model.set_strategy(Strategy::Session));
    for session in 0..6 {
        let before = upstreams.each_ref().map(Upstream::count);
        (0..5).for_each(|_| assert_eq!(call(&stack, &session.to_string()).status, 200));
        let homes = upstreams.iter().zip(before).filter(|(upstream, before)| upstream.count() > *before).count();
        assert_eq!(homes, 1);
    }
}

#[test]
fn a_saturated_endpoint_has_a_queue_with_a_deadline() {
    let stack = Stack::new();
    let slow = Upstream::start(|_| vec![Step::Wait(Duration::from_millis(300)), Step::Send(json_answer(200, ANSWER))]);
    let one_at_a_time = |timeout| {
        let mut only = endpoints(&[&slow]);
        only[0].concurrency_max = 1;
        serve(&stack, only, |model| model.queue_timeout_ms = timeout);
    };
    one_at_a_time(20_000);
    let since = Instant::now();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| call(&stack, "a").status)).collect();
        assert!(calls.into_iter().all(|call| call.join().unwrap() == 200));
    });
    assert!(since.elapsed() >= Duration::from_millis(1_200), "one after the other");
    let hold = held(&slow);
    one_at_a_time(100);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| call(&stack, "a").status);
        wait_for("the first call runs", || slow.count() == 5);
        let late = call(&stack, "a");
        assert_eq!((late.status, late.code()), (503, "queue_timeout".into()));
        assert!(late.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
        hold.store(true, Relaxed);
        assert_eq!(first.join().unwrap(), 200);
    });
    assert_eq!(call(&stack, "a").status, 200, "its slot is free again: {TENANT}");
}

#[test]
fn the_queue_is_as_long_and_as_patient_as_it_was_set() {
    let refused = |variable: &'static str, value: u32, waiting: usize| {
        let stack = Stack::with(|setup| setup.with(variable, value));
        let slow = good();
        let hold = held(&slow);
        let mut only = endpoints(&[&slow]);
        only[0].concurrency_max = 1;
        serve(&stack, only, |_| {});
        std::thread::scope(|scope| {
            let served: Vec<_> = (0..=waiting).map(|_| scope.spawn(|| call(&stack, "a").status)).collect();
            wait_for("the others wait", || slow.count() == 1 && queue_length(&stack) == waiting);
            let late = call(&stack, "a");
            hold.store(true, Relaxed);
            assert!(served.into_iter().all(|call| call.join().unwrap() == 200));
            (late.status, late.code())
        })
    };
    assert_eq!(refused("TENON_GATEWAY_QUEUE_WAIT_MS", 50, 0), (503, "queue_timeout".into()));
    assert_eq!(refused("TENON_GATEWAY_QUEUE_LENGTH_MAX", 0, 0), (503, "queue_full".into()));
    assert_eq!(refused("TENON_GATEWAY_QUEUE_LENGTH_MAX", 2, 2), (503, "queue_full".into()));
}

/// It answers when the test allows it.
fn held(upstream: &Upstream) -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let waiting = flag.clone();
    upstream.respond(move |_| vec![Step::Until(waiting.clone()), Step::Send(json_answer(200, ANSWER))]);
    flag
}

/// Of all endpoints together.
fn queue_length(stack: &Stack) -> usize {
    let page = tenon_testkit::get(stack.gateway.admin, "/metrics", "").text();
    let lines = page.lines().filter(|line| line.starts_with("tenon_gateway_endpoint_queue_length{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

/// Answers calls, and other requests with the status and text from `page`.
fn watched(page: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |request| {
        let path = request.line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next());
        let (status, text) = path.map_or((200, ANSWER.to_owned()), &page);
        assert!(path.is_none() || request.header("authorization").is_none(), "no credential without a call");
        vec![Step::Send(json_answer(status, &text))]
    })
}

fn calls(upstream: &Upstream) -> usize {
    upstream.requests.lock().unwrap().iter().filter(|request| request.line.starts_with("POST ")).count()
}

fn polls(upstream: &Upstream) -> usize {
    upstream.count() - calls(upstream)
}

fn hurried() -> Stack {
    Stack::with(|setup| setup.with("TENON_GATEWAY_METRICS_INTERVAL_MS", 50).with("TENON_GATEWAY_HEALTH_INTERVAL_MS", 50))
}

#[test]
fn the_engine_that_says_it_is_idle_gets_the_calls() {
    let stack = hurried();
    let vllm = |running: u32, waiting: u32| {
        format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine=\"0\"}} {running}\nvllm:num_requests_waiting{{engine=\"0\"}} {waiting}\n"
        )
    };
    let busy_now = Arc::new(AtomicUsize::new(0));
    let upstreams = [0, 1].map(|index| {
        let busy_now = busy_now.clone();
        watched(move |_| (200, if busy_now.load(Relaxed) == index { vllm(30, 12) } else { vllm(1, 0) }))
    });
    let mut both = endpoints(&upstreams.each_ref());
    for (endpoint, upstream) in both.iter_mut().zip(&upstreams) {
        endpoint.set_engine(Engine::Vllm);
        endpoint.metrics_url = format!("http://{}/metrics", upstream.address);
    }
    serve(&stack, both.clone(), |model| model.set_strategy(Strategy::Engine));
    for busy in [0, 1] {
        busy_now.store(busy, Relaxed);
        let before = upstreams.each_ref().map(polls);
        wait_for("both were polled", || upstreams.iter().zip(before).all(|(upstream, before)| polls(upstream) >= before + 3));
        let before = upstreams.each_ref().map(calls);
        (0..20).for_each(|_| assert_eq!(call(&stack, "a").status, 200));
        let got = [0, 1].map(|index| calls(&upstreams[index]) - before[index]);
        assert_eq!((got[busy], got[1 - busy]), (0, 20), "{busy} is busy");
        let metric = |what: &str| stack.gateway.metric(&format!("tenon_gateway_engine_calls_{what}{{endpoint_id=\"e{busy}\"}}"));
        assert_eq!((metric("running"), metric("waiting")), (30.0, 12.0), "its figures are shown");
    }
    both.iter_mut().for_each(|endpoint| endpoint.metrics_url.clear());
    serve(&stack, both, |model| model.set_strategy(Strategy::Engine));
    wait_for("neither is polled any more", || {
        let before = upstreams.each_ref().map(polls);
        std::thread::sleep(Duration::from_millis(200));
        before == upstreams.each_ref().map(polls)
    });
}

#[test]
fn a_health_page_takes_an_endpoint_out_and_brings_it_back() {
    let stack = hurried();
    let status = Arc::new(AtomicUsize::new(200));
    let answer_status = status.clone();
    let (first, second) = (watched(move |_| (answer_status.load(Relaxed) as u16, String::new())), good());
    let mut both = endpoints(&[&first, &second]);
    both[0].health_path = "/health".into();
    serve(&stack, both.clone(), |model| model.routes[1].tier = 1);
    let state = || stack.gateway.metric("tenon_gateway_endpoint_state{endpoint_id=\"e0\"}");
    assert_eq!(call(&stack, "a").status, 200);
    assert_eq!((calls(&first), second.count()), (1, 0));
    status.store(503, Relaxed);
    wait_for("it is down", || state() == 4.0);
    (0..5).for_each(|_| assert_eq!(call(&stack, "a").status, 200));
    assert_eq!((calls(&first), second.count()), (1, 5));
    status.store(204, Relaxed);
    wait_for("it is healthy", || state() == 0.0);
    assert_eq!(call(&stack, "a").status, 200);
    assert_eq!((calls(&first), second.count()), (2, 5));
    status.store(500, Relaxed);
    wait_for("it is down again", || state() == 4.0);
    both[0].health_path.clear();
    serve(&stack, both, |model| model.routes[1].tier = 1);
    wait_for("an old status no longer counts once it is not polled", || state() == 0.0);
}

#[test]
fn streams_that_break_off_count_against_their_endpoint() {
    let stack = Stack::new();
    let breaking = Upstream::start(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::Close]);
    let silent = Upstream::start(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone]);
    for (upstream, code) in [(&breaking, "upstream_cut"), (&silent, "upstream_idle_timeout")] {
        let mut only = endpoints(&[upstream]);
        only[0].endpoint_id = code.into();
        only[0].sealed_credential = tenon_testkit::seal("upstream-secret", code);
        only[0].idle_timeout_ms = 100;
        serve(&stack, only, |_| ());
        let state = || stack.gateway.metric(&format!("tenon_gateway_endpoint_state{{endpoint_id=\"{code}\"}}"));
        for _ in 0..10 {
            assert_eq!(state(), 0.0);
            let answer = Client::post(stack.gateway.address, CHAT, &[("x-api-key", &stack.key.text)], STREAM_BODY).finish();
            assert!(answer.text().contains(code), "{}", answer.text());
        }
        assert_eq!(state(), 2.0, "its breaker opened");
    }
}
