//! Credentials beyond a plain key: tokens of trusted issuers, and what ends the calls that run by them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use serde_json::json;
use support::{BODY, CHAT, House, STREAM_BODY, TENANT, frame};
use tenon_contract::Outcome;
use tenon_testkit::{Answer, Client, Provider, Step, TestKey, federate, in_seconds, post, sse_head, wait_for};

const OTHER_TENANT: &str = "019a0000-0000-7000-8000-0000000000a2";

fn credential(id: &str, tenant: &str, issuer_id: &str) -> TestKey {
    TestKey::new(id, tenant).with(|record| federate(record, issuer_id, "robot"))
}

/// A house whose tenant trusts `provider`; its subject `robot` is a credential.
fn house(provider: &Provider) -> House {
    let house = House::new();
    house.control.put_issuer(provider.issuer("i1", TENANT, &[]));
    house.put_key(&credential("federated1", TENANT, "i1"));
    house
}

fn call(house: &House, token: &str) -> Answer {
    post(house.gateway.address, CHAT, token, BODY)
}

fn code(answer: &Answer) -> String {
    if answer.status == 200 { "ok".into() } else { answer.json()["error"]["code"].as_str().unwrap().to_owned() }
}

#[test]
fn a_token_is_its_subjects_credential() {
    let provider = Provider::new("k1");
    let house = house(&provider);
    let token = provider.token(&json!({}));
    for _ in 0..3 {
        let answer = call(&house, &token);
        assert_eq!(code(&answer), "ok");
        assert_eq!(house.usage(&answer).key_id, "federated1");
    }
    let stranger = Provider::new("k1");
    let told = [
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
    for (token, wanted) in told {
        let answer = call(&house, &token);
        assert_eq!((answer.status, &*code(&answer)), (401, wanted), "{}", answer.text());
    }
    // The credential's id is public, and no text stands for it.
    assert_eq!(code(&call(&house, &TestKey::new("federated1", TENANT).text)), "invalid_api_key");
}

/// As another caller behind the same proxy.
fn call_from(house: &House, address: &str, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    Client::post(house.gateway.address, CHAT, &[("authorization", &bearer), ("x-forwarded-for", address)], BODY).finish()
}

#[test]
fn who_forges_tokens_is_soon_not_looked_at_and_nobody_else_is_hurt() {
    let (provider, forger) = (Provider::new("k1"), Provider::new("k1"));
    let house = House::with(|setup| setup.with("TENON_GATEWAY_TRUSTED_PROXIES", "127.0.0.1/32").with("TENON_GATEWAY_THREADS", 1));
    house.control.put_issuer(provider.issuer("i1", TENANT, &[]));
    house.put_key(&credential("federated1", TENANT, "i1"));
    let known = provider.token(&json!({}));
    assert_eq!(code(&call_from(&house, "192.0.2.1", &known)), "ok");
    let mut sent = 0;
    // How many forged tokens were looked at before one was not.
    let mut spend = || {
        let before = sent;
        wait_for("a token that is not looked at", || {
            sent += 1;
            let refused = call_from(&house, "192.0.2.1", &forger.token(&json!({"jti": sent.to_string()})));
            let told = (refused.status, &*code(&refused), refused.header("retry-after"));
            assert!([(401, "invalid_token", None), (429, "too_many_invalid_tokens", Some("1"))].contains(&told), "{told:?}");
            refused.status == 429
        });
        sent - before - 1
    };
    let checked = spend();
    assert!(checked >= 20, "a burst, and what time gave back: {checked}");
    let fresh = |n: u32| provider.token(&json!({"jti": format!("fresh {n}")}));
    assert_eq!(code(&call_from(&house, "192.0.2.2", &fresh(1))), "ok", "another address");
    assert_eq!(code(&call_from(&house, "192.0.2.1", &known)), "ok", "what was verified stays so");
    assert_eq!(code(&call_from(&house, "192.0.2.1", &house.key.text)), "ok", "keys are not tokens");
    let mut tried = 2..;
    let mut again = || code(&call_from(&house, "192.0.2.1", &fresh(tried.next().unwrap())));
    wait_for("nobody knows yet that it is good", || {
        spend(); // time pays, on a slow machine even between two calls
        again() == "too_many_invalid_tokens"
    });
    wait_for("time pays", || again() == "ok");
    assert!(house.gateway.metric("tenon_gateway_refusals_total{code=\"too_many_invalid_tokens\"}") >= 1.0);
}

#[test]
fn rotated_keys_are_believed_and_withdrawn_ones_are_not() {
    let (first, second) = (Provider::new("k1"), Provider::new("k2"));
    let house = house(&first);
    let (old, new) = (first.token(&json!({})), second.token(&json!({})));
    let asked = house.control.resolves();
    assert_eq!([code(&call(&house, &old)), code(&call(&house, &new)), code(&call(&house, &new))], ["ok", "invalid_token", "invalid_token"]);
    wait_for("the unknown key is reported", || house.control.resolves() == asked + 1);
    house.gateway.wait_revision(house.control.put_issuer(second.issuer("i1", TENANT, &[&first])));
    assert_eq!([code(&call(&house, &old)), code(&call(&house, &new))], ["ok", "ok"]);
    house.gateway.wait_revision(house.control.put_issuer(second.issuer("i1", TENANT, &[])));
    assert_eq!([code(&call(&house, &old)), code(&call(&house, &new))], ["invalid_token", "ok"], "a verified token must be forgotten");
    assert_eq!(house.control.resolves(), asked + 1, "an issuer is asked about once in ten seconds");
}

#[test]
fn revocation_and_a_disabled_issuer_stop_tokens_that_were_good() {
    let provider = Provider::new("k1");
    let house = house(&provider);
    let token = provider.token(&json!({}));
    assert_eq!(code(&call(&house, &token)), "ok");
    house.gateway.wait_revision(house.control.revoke("federated1"));
    assert_eq!(code(&call(&house, &token)), "key_revoked");
    house.put_key(&credential("federated2", TENANT, "i1"));
    let answer = call(&house, &token);
    assert_eq!((code(&answer), house.usage(&answer).key_id), ("ok".into(), "federated2".into()));
    let disabled = tenon_contract::Issuer { disabled: true, ..provider.issuer("i1", TENANT, &[]) };
    house.gateway.wait_revision(house.control.put_issuer(disabled));
    assert_eq!(code(&call(&house, &token)), "invalid_token");
}

#[test]
fn a_subject_of_two_tenants_is_nobody() {
    let provider = Provider::new("k1");
    let house = house(&provider);
    house.control.put_issuer(provider.issuer("i2", OTHER_TENANT, &[]));
    let token = provider.token(&json!({}));
    house.gateway.wait_revision(house.control.revision());
    assert_eq!(code(&call(&house, &token)), "ok", "the other tenant has no such subject");
    house.put_key(&credential("federated3", OTHER_TENANT, "i2"));
    assert_eq!(code(&call(&house, &token)), "token_ambiguous");
    // Another tenant's issuer of the same name, with keys of its own, neither helps nor hinders.
    house.gateway.wait_revision(house.control.put_issuer(Provider::new("k1").issuer("i2", OTHER_TENANT, &[])));
    assert_eq!(code(&call(&house, &token)), "ok");
}

/// A stream that would go on for ever, and how it ended.
fn stream_until(house: &House, token: &str, then: impl FnOnce()) -> Answer {
    house.upstream.say(|_| vec![Step::Send(sse_head()), Step::Send(frame("a")), Step::UntilGone]);
    let mut client = Client::post(house.gateway.address, CHAT, &[("x-api-key", token)], STREAM_BODY);
    let mut answer = client.head();
    assert_eq!(client.chunk().unwrap().unwrap(), frame("a"));
    then();
    client.read_body(&mut answer);
    answer
}

#[test]
fn a_stream_ends_with_its_token_its_credential_or_its_issuer() {
    let provider = Provider::new("k1");
    let house = house(&provider);
    let token = provider.token(&json!({}));
    let check = |answer: Answer, code: &str| {
        assert!(answer.text().contains(code) && !answer.text().contains("[DONE]"), "{}", answer.text());
        assert_eq!(house.usage(&answer).outcome(), Outcome::Cut);
    };
    let short = provider.token(&json!({"exp": in_seconds(2)}));
    check(stream_until(&house, &short, || {}), "key_expired");
    check(stream_until(&house, &token, || drop(house.control.revoke("federated1").to_string())), "key_revoked");
    house.put_key(&credential("federated2", TENANT, "i1"));
    let disabled = tenon_contract::Issuer { disabled: true, ..provider.issuer("i1", TENANT, &[]) };
    check(stream_until(&house, &token, || drop(house.control.put_issuer(disabled).to_string())), "key_revoked");
}

#[test]
fn the_address_behind_a_proxy_of_ours_is_the_callers() {
    let house = House::with(|setup| setup.with("TENON_GATEWAY_TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8"));
    let key = TestKey::new("networkkey", TENANT).with(|record| record.source_networks = vec!["198.51.100.0/24".into()]);
    house.put_key(&key);
    let from = |forwarded: &str| {
        let headers = [("x-api-key", &*key.text), ("x-forwarded-for", forwarded)];
        Client::post(house.gateway.address, CHAT, &headers, BODY).finish().status
    };
    assert_eq!(from("203.0.113.1, 198.51.100.7"), 200);
    assert_eq!(from("203.0.113.1, 198.51.100.7, 10.2.2.2"), 200);
    assert_eq!(from("198.51.100.7, 203.0.113.1"), 403, "what stands before a stranger's address was written by the stranger");
    assert_eq!(call(&house, &key.text).status, 403);
    assert_eq!(code(&call(&house, &house.key.text)), "ok");
}

#[test]
fn a_restart_without_the_control_plane_still_knows_issuers_and_subjects() {
    let provider = Provider::new("k1");
    let mut house = house(&provider);
    let copy = house.setup.data_dir().join("data/last-known-good.bin");
    wait_for("the copy on disk", || std::fs::read(&copy).is_ok_and(|copy| copy.windows(10).any(|text| text == b"federated1")));
    house.gateway.kill();
    house.control.stop();
    house.gateway = house.setup.spawn();
    assert_eq!(code(&call(&house, &provider.token(&json!({})))), "ok");
}
