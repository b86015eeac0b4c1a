//! `contracts/tokens/corpus.json`: the control plane runs the same cases (`server/tests/core/identity/test_tokens.py`).
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::Value;
use std::collections::HashMap;
use tenon_jose::{Issuer, Unverified};

struct Corpus {
    now_unix_ms: i64,
    issuers: HashMap<String, Issuer>,
    cases: Vec<Value>,
}

fn corpus() -> Corpus {
    let file: Value = serde_json::from_str(include_str!("../../../../contracts/tokens/corpus.json")).unwrap();
    let issuers = file["issuers"].as_object().unwrap().iter().map(|(name, record)| (name.clone(), issuer(record))).collect();
    Corpus { now_unix_ms: file["now_unix_ms"].as_i64().unwrap(), issuers, cases: file["cases"].as_array().unwrap().clone() }
}

fn issuer(record: &Value) -> Issuer {
    let audiences: Vec<String> = record["audiences"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect();
    let number = |name: &str| u32::try_from(record[name].as_u64().unwrap()).unwrap();
    let (name, algorithm) = (record["issuer"].as_str().unwrap(), record["algorithm"].as_str().unwrap());
    Issuer::compile(name, &audiences, algorithm, record["jwks"].to_string().as_bytes(), number("leeway_ms"), number("lifetime_max_ms")).unwrap()
}

fn token(case: &Value) -> String {
    match case["token"].as_str() {
        Some(token) => token.to_owned(),
        None => case["character"].as_str().unwrap().repeat(usize::try_from(case["count"].as_u64().unwrap()).unwrap()),
    }
}

fn verdict(token: &str, issuer: &Issuer, now_unix_ms: i64) -> &'static str {
    Unverified::parse(token.as_bytes()).and_then(|token| token.verify(issuer, now_unix_ms)).map_or_else(|refused| refused.code(), |_| "accept")
}

#[test]
fn verdicts_equal_those_of_the_corpus() {
    let corpus = corpus();
    let mut wrong = Vec::new();
    for case in &corpus.cases {
        let actual = verdict(&token(case), &corpus.issuers[case["issuer"].as_str().unwrap()], corpus.now_unix_ms);
        if actual != case["verdict"] {
            wrong.push(format!("{}: {actual} instead of {}", case["name"], case["verdict"]));
        }
    }
    assert!(wrong.is_empty() && corpus.cases.len() > 200, "{}", wrong.join("\n"));
}

#[test]
fn an_issuer_that_could_check_nothing_is_refused() {
    let audiences = ["a".to_owned()];
    let compile = |name: &str, audiences: &[String], algorithm: &str, jwks: &str| {
        Issuer::compile(name, audiences, algorithm, jwks.as_bytes(), 0, 0).map(|issuer| issuer.keys()).map_err(|e| e.to_string())
    };
    assert_eq!(compile("i", &audiences, "ES256", r#"{"keys":[]}"#), Ok(0));
    for refused in [
        compile("", &audiences, "ES256", r#"{"keys":[]}"#),
        compile("i", &[], "ES256", r#"{"keys":[]}"#),
        compile("i", &[String::new()], "ES256", r#"{"keys":[]}"#),
        compile("i", &audiences, "HS256", r#"{"keys":[]}"#),
        compile("i", &audiences, "none", r#"{"keys":[]}"#),
        compile("i", &audiences, "ES256", "[]"),
        compile("i", &audiences, "ES256", r#"{"keys":[],"keys":[]}"#),
    ] {
        assert!(refused.is_err());
    }
}

/// `cargo test --release -p tenon-jose --test corpus -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a check"]
fn what_verification_costs() {
    let corpus = corpus();
    for case in corpus.cases.iter().take(10) {
        let (token, issuer) = (token(case), &corpus.issuers[case["issuer"].as_str().unwrap()]);
        let begun = std::time::Instant::now();
        for _ in 0..2_000 {
            assert_eq!(verdict(&token, issuer, corpus.now_unix_ms), "accept");
        }
        println!("{}: {:.1} µs", case["name"], begun.elapsed().as_secs_f64() / 2_000.0 * 1e6);
    }
}

proptest! {
    /// A good token with any one character changed is refused.
    #[test]
    fn no_changed_character_is_accepted(which in 0_usize..10, at in 0_usize..700, character in "[A-Za-z0-9_.=-]") {
        let corpus = corpus();
        let case = &corpus.cases[which];
        let mut token = token(case);
        let at = at % token.len();
        prop_assume!(&token[at..=at] != character.as_str());
        token.replace_range(at..=at, &character);
        prop_assert_ne!(verdict(&token, &corpus.issuers[case["issuer"].as_str().unwrap()], corpus.now_unix_ms), "accept");
    }

    #[test]
    fn no_bytes_break_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Unverified::parse(&bytes).map(|token| token.claimed_issuer().map(str::len));
    }
}
