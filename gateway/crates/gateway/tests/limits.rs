//! Limits for callers: refused with the code, the headers and the right Retry-After; correct over four gateways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::{ANSWER, BODY, CHAT, STREAM_BODY, Stack, TENANT, frame, limit, setup};
use tenon_contract::{Governance, Limit, Subject};
use tenon_testkit::{Gateway, Setup, Step, TestKey, post, sse_head, wait_for};

impl Stack {
    fn govern(&self, limits: Vec<Limit>) {
        let revision = self.control.put_governance(Governance { tenant_id: TENANT.into(), limits, ..Governance::default() });
        self.gateway.wait_revision(revision);
        wait_for("the shares arrive", || self.gateway.metric("tenon_gateway_limits_without_share") == 0.0);
    }
}

#[test]
fn without_limits_there_are_no_headers() {
    let stack = Stack::new();
    let answer = stack.chat(BODY);
    assert_eq!((answer.status, answer.header("ratelimit"), answer.header("x-ratelimit-limit-requests")), (200, None, None));
}

#[test]
fn a_call_above_the_limit_gets_retry_after() {
    let stack = Stack::new();
    stack.govern(vec![limit("l", Subject::Key, &stack.key.record.key_id, 3, 0, 0)]);
    for left in ["2", "1", "0"] {
        let answer = stack.chat(BODY);
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, None), "they were not requested");
        assert_eq!(answer.header("ratelimit-policy"), Some(r#""key-requests";q=3;w=60"#));
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"key-requests\";r={left};t=")));
    }
    let refused = stack.chat(BODY);
    assert_eq!((refused.status, refused.code().as_str()), (429, "requests_limit_exceeded"));
    assert_eq!(refused.header("x-should-retry"), None, "trying again is right, later");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((55..=62).contains(&wait), "{wait}");
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("3 requests a minute of this API key"));
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"), "a caller at its limit gets all headers");
    assert_eq!(stack.upstream.count(), 3, "what is refused reaches no upstream");
    assert_eq!(stack.gateway.metric("tenon_gateway_refusals_total{code=\"requests_limit_exceeded\"}"), 1.0);
    let other = TestKey::new("otherother", TENANT);
    stack.put_key(&other);
    assert_eq!(post(stack.gateway.address, CHAT, &other.text, BODY).status, 200, "another key has its own");
    stack.govern(vec![limit("l", Subject::Key, &stack.key.record.key_id, 4, 0, 0)]);
    assert!(stack.chat(BODY).header("ratelimit").unwrap().starts_with("\"key-requests\";r=0;"), "a raised limit counts on");
}

#[test]
fn tokens_are_reserved_and_corrected_by_the_engines_numbers() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_OPENAI_LIMIT_HEADERS", "true"));
    stack.govern(vec![limit("l", Subject::Model, "m", 0, 1000, 0)]);
    let body = BODY.replace("}]}", "}],\"max_tokens\":400}");
    assert_eq!(stack.chat(&body).status, 200);
    // 11 + 7 by the engine's numbers; each call reserves some 415.
    assert_eq!(stack.chat(&body).header("x-ratelimit-remaining-tokens"), Some("964"), "settled before the head goes out");
    let refused = stack.chat(&BODY.replace("}]}", "}],\"max_tokens\":990}"));
    assert_eq!((refused.status, refused.code().as_str()), (429, "tokens_limit_exceeded"));
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("964"), "both calls are corrected to 18");
}

#[test]
fn calls_at_a_time_are_counted_until_their_last_byte() {
    let stack = Stack::new();
    stack.govern(vec![limit("l", Subject::Tenant, TENANT, 0, 0, 2)]);
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone]);
    let mut open: Vec<_> = (0..2).map(|_| stack.open(STREAM_BODY)).collect();
    open.iter_mut().for_each(|client| assert_eq!(client.head().status, 200));
    let refused = stack.chat(BODY);
    assert_eq!((refused.status, refused.code().as_str(), refused.header("retry-after")), (429, "concurrency_limit_exceeded", Some("1")));
    open.clear();
    stack.upstream.respond(|_| vec![Step::Send(tenon_testkit::json_answer(200, ANSWER))]);
    wait_for("the slots are free again", || stack.chat(BODY).status == 200);
    for _ in 0..20 {
        assert_eq!(stack.chat(BODY).status, 200, "nothing leaks");
    }
}

#[test]
fn a_session_and_a_principal_and_a_project_are_limited_together() {
    let stack = Stack::new();
    let record = &stack.key.record;
    stack.govern(vec![
        limit("a", Subject::Tenant, TENANT, 100, 0, 0),
        limit("b", Subject::Project, &record.project_id, 100, 0, 0),
        limit("c", Subject::Principal, &record.principal_id, 2, 0, 0),
    ]);
    assert_eq!([stack.chat(BODY).status, stack.chat(BODY).status], [200, 200]);
    let refused = stack.chat(BODY);
    assert_eq!((refused.status, refused.code().as_str()), (429, "requests_limit_exceeded"));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("this principal"));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"principal-requests\";r=0;"), "the limit with the least left is reported");
    stack.govern(vec![limit("a", Subject::Tenant, TENANT, 100, 0, 0)]);
    assert!(stack.chat(BODY).header("ratelimit").unwrap().starts_with("\"tenant-requests\";r=97;"), "what was refused was given back elsewhere");
}

/// Four processes, one control plane, all callers call as fast as they can for some seconds.
#[test]
fn four_gateways_together_admit_the_limit_and_no_more() {
    const LIMIT: u64 = 120;
    let mut stack = Stack::new();
    stack.govern(vec![limit("l", Subject::Tenant, TENANT, LIMIT, 0, 0)]);
    let more: Vec<Setup> = (0..3).map(|_| setup(&stack.control)).collect();
    let gateways: Vec<Gateway> = more.iter().map(Setup::start).collect();
    let addresses: Vec<_> = gateways.iter().map(|gateway| gateway.address).chain([stack.gateway.address]).collect();
    wait_for("every gateway has its share", || {
        gateways.iter().chain([&stack.gateway]).all(|gateway| gateway.metric("tenon_gateway_limits_without_share") == 0.0)
    });
    let until = std::time::Instant::now() + std::time::Duration::from_secs(8);
    let key = stack.key.text.clone();
    let call = |address| {
        let key = key.clone();
        std::thread::spawn(move || {
            let mut admitted = 0;
            while std::time::Instant::now() < until {
                match post(address, CHAT, &key, BODY).status {
                    200 => admitted += 1,
                    429 => std::thread::sleep(std::time::Duration::from_millis(5)),
                    other => panic!("{other}"),
                }
            }
            admitted
        })
    };
    let admitted: u64 = addresses.into_iter().map(call).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(admitted <= LIMIT, "{admitted} of {LIMIT} in less than a minute");
    assert!(admitted >= LIMIT * 9 / 10, "{admitted} of {LIMIT}: shares that no gateway can use");
    stack.gateway.kill();
}

/// A control plane that is gone changes nothing: each goes by its last share.
#[test]
fn without_the_control_plane_the_last_share_stands() {
    let stack = Stack::new();
    stack.govern(vec![limit("l", Subject::Tenant, TENANT, 5, 0, 0)]);
    stack.control.stop();
    let statuses: Vec<_> = (0..7).map(|_| stack.chat(BODY).status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
}
