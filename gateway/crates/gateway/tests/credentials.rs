//! Credentials beyond a plain key: tokens of trusted issuers, and what ends the calls that run by them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::json;
use support::{BODY, CHAT, STREAM_BODY, Stack, TENANT, frame};
use tenon_contract::Outcome;
use tenon_testkit::{Answer, Client, IdentityProvider, Step, TestKey, federate, in_seconds, post, sse_head, wait_for};

const OTHER_TENANT: &str = "019a0000-0000-7000-8000-0000000000a2";

fn credential(id: &str, tenant: &str, issuer_id: &str) -> TestKey {
    TestKey::new(id, tenant).with(|record| federate(record, issuer_id, "robot"))
}

/// A stack whose tenant trusts `provider`; its subject `robot` is a credential.
fn stack(provider: &IdentityProvider) -> Stack {
    let stack = Stack::new();
    stack.control.put_issuer(provider.issuer("i1", TENANT, &[]));
    stack.put_key(&credential("federated1", TENANT, "i1"));
    stack
}

fn call(stack: &Stack, token: &str) -> Answer {
    post(stack.gateway.address, CHAT, token, BODY)
}

fn code(answer: &Answer) -> String {
    if answer.status == 200 { "ok".into() } else { answer.json()["error"]["code"].as_str().unwrap().to_owned() }
}

#[test]
fn a_token_is_its_subjects_credential() {
    let provider = IdentityProvider::new("k1");
    let stack = stack(&provider);
    let token = provider.token(&json!({}));
    for _ in 0..3 {
        let answer = call(&stack, &token);
        assert_eq!(code(&answer), "ok");
        assert_eq!(stack.usage(&answer).key_id, "federated1");
    }
    let stranger = IdentityProvider::new("k1");
    let refused = [
        (provider.token(&json!({"sub": "stranger"})), "token_subject_unknown"),
        (provider.token(&json!({"aud": "other"})), "invalid_token"),
        (provider.token(&json!({"iss": "https://idp.example/"})), "invalid_token"),
        (provider.token(&json!({"exp": in_seconds(-1)})), "token_expired"),
        (provider.token(&json!({"nbf": in_seconds(60)})), "token_not_yet_valid"),
        (stranger.token(&json!({})), "invalid_token"),
        (format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'Q' } else { 'A' }), "invalid_token"),
        ("a.b.c".into(), "invalid_token"),
        ("abc".into(), "invalid_api_key"),
    ];
    for (token, expected) in refused {
        let answer = call(&stack, &token);
        assert_eq!((answer.status, &*code(&answer)), (401, expected), "{}", answer.text());
    }
    // The credential's id is public, and no text stands for it.
    assert_eq!(code(&call(&stack, &TestKey::new("federated1", TENANT).text)), "invalid_api_key");
}

/// As another caller behind the same proxy.
fn call_from(stack: &Stack, address: &str, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    Client::post(stack.gateway.address, CHAT, &[("authorization", &bearer), ("x-forwarded-for", address)], BODY).finish()
}

#[test]
fn forged_tokens_are_limited_by_source_address() {
    let (provider, forger) = (IdentityProvider::new("k1"), IdentityProvider::new("k1"));
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_TRUSTED_PROXIES", "127.0.0.1/32").with("TENON_GATEWAY_THREADS", 1));
    stack.control.put_issuer(provider.issuer("i1", TENANT, &[]));
    stack.put_key(&credential("federated1", TENANT, "i1"));
    let known = provider.token(&json!({}));
    assert_eq!(code(&call_from(&stack, "192.0.2.1", &known)), "ok");
    let mut sent = 0;
    // How many forged tokens were checked before one was not.
    let mut spend = || {
        let before = sent;
        wait_for("a token that is not checked", || {
            sent += 1;
            let refused = call_from(&stack, "192.0.2.1", &forger.token(&json!({"jti": sent.to_string()})));
            let seen = (refused.status, &*code(&refused), refused.header("retry-after"));
            assert!([(401, "invalid_token", None), (429, "too_many_invalid_tokens", Some("1"))].contains(&seen), "{seen:?}");
            refused.status == 429
        });
        sent - before - 1
    };
    let checked = spend();
    assert!(checked >= 20, "a burst, and what time gave back: {checked}");
    let fresh = |n: u32| provider.token(&json!({"jti": format!("fresh {n}")}));
    assert_eq!(code(&call_from(&stack, "192.0.2.2", &fresh(1))), "ok", "another address");
    assert_eq!(code(&call_from(&stack, "192.0.2.1", &known)), "ok", "what was verified stays so");
    assert_eq!(code(&call_from(&stack, "192.0.2.1", &stack.key.text)), "ok", "keys are not tokens");
    let mut tried = 2..;
    let mut again = || code(&call_from(&stack, "192.0.2.1", &fresh(tried.next().unwrap())));
    wait_for("a good token that was not verified before is refused", || {
        spend(); // time pays, on a slow machine even between two calls
        again() == "too_many_invalid_tokens"
    });
    wait_for("time pays", || again() == "ok");
    assert!(stack.gateway.metric("tenon_gateway_refusals_total{code=\"too_many_invalid_tokens\"}") >= 1.0);
}

#[test]
fn rotated_keys_are_accepted_and_withdrawn_ones_are_not() {
    let (first, second) = (IdentityProvider::new("k1"), IdentityProvider::new("k2"));
    let stack = stack(&first);
    let (old, new) = (first.token(&json!({})), second.token(&json!({})));
    let resolves = stack.control.resolves();
    assert_eq!([code(&call(&stack, &old)), code(&call(&stack, &new)), code(&call(&stack, &new))], ["ok", "invalid_token", "invalid_token"]);
    wait_for("the unknown key is reported", || stack.control.resolves() == resolves + 1);
    stack.gateway.wait_revision(stack.control.put_issuer(second.issuer("i1", TENANT, &[&first])));
    assert_eq!([code(&call(&stack, &old)), code(&call(&stack, &new))], ["ok", "ok"]);
    stack.gateway.wait_revision(stack.control.put_issuer(second.issuer("i1", TENANT, &[])));
    assert_eq!([code(&call(&stack, &old)), code(&call(&stack, &new))], ["invalid_token", "ok"], "a verified token must be forgotten");
    assert_eq!(stack.control.resolves(), resolves + 1, "an issuer is looked up once in ten seconds");
}

#[test]
fn revocation_and_a_disabled_issuer_stop_tokens_that_were_good() {
    let provider = IdentityProvider::new("k1");
    let stack = stack(&provider);
    let token = provider.token(&json!({}));
    assert_eq!(code(&call(&stack, &token)), "ok");
    stack.gateway.wait_revision(stack.control.revoke("federated1"));
    assert_eq!(code(&call(&stack, &token)), "key_revoked");
    stack.put_key(&credential("federated2", TENANT, "i1"));
    let answer = call(&stack, &token);
    assert_eq!((code(&answer), stack.usage(&answer).key_id), ("ok".into(), "federated2".into()));
    let disabled = tenon_contract::Issuer { disabled: true, ..provider.issuer("i1", TENANT, &[]) };
    stack.gateway.wait_revision(stack.control.put_issuer(disabled));
    assert_eq!(code(&call(&stack, &token)), "invalid_token");
}

#[test]
fn a_subject_of_two_tenants_is_ambiguous() {
    let provider = IdentityProvider::new("k1");
    let stack = stack(&provider);
    stack.control.put_issuer(provider.issuer("i2", OTHER_TENANT, &[]));
    let token = provider.token(&json!({}));
    stack.gateway.wait_revision(stack.control.revision());
    assert_eq!(code(&call(&stack, &token)), "ok", "the other tenant has no such subject");
    stack.put_key(&credential("federated3", OTHER_TENANT, "i2"));
    assert_eq!(code(&call(&stack, &token)), "token_ambiguous");
    // Another tenant's issuer of the same name, with keys of its own, neither helps nor hinders.
    stack.gateway.wait_revision(stack.control.put_issuer(IdentityProvider::new("k1").issuer("i2", OTHER_TENANT, &[])));
    assert_eq!(code(&call(&stack, &token)), "ok");
}

/// A stream without an end, and how it ended.
fn stream_until(stack: &Stack, token: &str, then: impl FnOnce()) -> Answer {
    stack.upstream.respond(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone]);
    let mut client = Client::post(stack.gateway.address, CHAT, &[("x-api-key", token)], STREAM_BODY);
    let mut answer = client.head();
    assert_eq!(client.chunk().unwrap().unwrap(), frame("a"));
    then();
    client.read_body(&mut answer);
    answer
}

#[test]
fn a_stream_ends_with_its_token_its_credential_or_its_issuer() {
    let provider = IdentityProvider::new("k1");
    let stack = stack(&provider);
    let token = provider.token(&json!({}));
    let check = |answer: Answer, code: &str| {
        assert!(answer.text().contains(code) && !answer.text().contains("[DONE]"), "{}", answer.text());
        assert_eq!(stack.usage(&answer).outcome(), Outcome::Cut);
    };
    let short = provider.token(&json!({"exp": in_seconds(2)}));
    check(stream_until(&stack, &short, || {}), "key_expired");
    check(stream_until(&stack, &token, || drop(stack.control.revoke("federated1").to_string())), "key_revoked");
    stack.put_key(&credential("federated2", TENANT, "i1"));
    let disabled = tenon_contract::Issuer { disabled: true, ..provider.issuer("i1", TENANT, &[]) };
    check(stream_until(&stack, &token, || drop(stack.control.put_issuer(disabled).to_string())), "key_revoked");
}

#[test]
fn the_address_behind_a_proxy_of_ours_is_the_callers() {
    let stack = Stack::with(|setup| setup.with("TENON_GATEWAY_TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8"));
    let key = TestKey::new("networkkey", TENANT).with(|record| record.source_networks = vec!["198.51.100.0/24".into()]);
    stack.put_key(&key);
    let from = |forwarded: &str| {
        let headers = [("x-api-key", &*key.text), ("x-forwarded-for", forwarded)];
        Client::post(stack.gateway.address, CHAT, &headers, BODY).finish().status
    };
    assert_eq!(from("203.0.113.1, 198.51.100.7"), 200);
    assert_eq!(from("203.0.113.1, 198.51.100.7, 10.2.2.2"), 200);
    assert_eq!(from("198.51.100.7, 203.0.113.1"), 403, "what stands before a stranger's address was written by the stranger");
    assert_eq!(call(&stack, &key.text).status, 403);
    assert_eq!(code(&call(&stack, &stack.key.text)), "ok");
}

#[test]
fn a_restart_without_the_control_plane_still_knows_issuers_and_subjects() {
    let provider = IdentityProvider::new("k1");
    let mut stack = stack(&provider);
    let copy = stack.setup.data_dir().join("data/last-known-good.bin");
    wait_for("the copy on disk", || std::fs::read(&copy).is_ok_and(|copy| copy.windows(10).any(|text| text == b"federated1")));
    stack.gateway.kill();
    stack.control.stop();
    stack.gateway = stack.setup.spawn();
    assert_eq!(code(&call(&stack, &provider.token(&json!({})))), "ok");
}
