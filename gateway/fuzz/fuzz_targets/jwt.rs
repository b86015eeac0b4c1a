//! Whatever is sent as a token: raw, and as header and payload that a trusted key has signed. What is accepted must say what it has to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::sync::LazyLock;
use tenon_jose::{Issuer, Unverified, Value};

const NAME: &str = "https://idp.example";
const NOW_MS: i64 = 1_900_000_000_000;

struct Setup {
    pair: Ed25519KeyPair,
    issuer: Issuer,
}

static SETUP: LazyLock<Setup> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{}"}}]}}"#, base64url(pair.public_key().as_ref()));
    let issuer = Issuer::compile(NAME, &["tenon".into()], "EdDSA", jwks.as_bytes(), 30_000, 0).expect("an issuer");
    Setup { pair, issuer }
});

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len()).for_each(|i| text.push(char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize])));
    }
    text
}

/// A token that is accepted was signed here, names the issuer and the audience once, and has not ended.
fn check(token: &[u8], payload: Option<&[u8]>) {
    let accepted = Unverified::parse(token).and_then(|token| token.verify(&SETUP.issuer, NOW_MS));
    let Ok(claims) = accepted else { return };
    let payload = payload.expect("a forged token was accepted");
    let said = Value::parse(payload).expect("an accepted payload is strict JSON");
    assert_eq!(said.get("iss").and_then(Value::text), Some(NAME));
    assert!(claims.expires_unix_ms > NOW_MS && !claims.subject.is_empty() && claims.subject.len() <= 255);
    assert!(matches!(said.get("exp"), Some(Value::Number(seconds)) if seconds * 1000.0 + 30_000.0 >= NOW_MS as f64));
    let again = Unverified::parse(token).expect("it was read before");
    assert!(again.names_audience_of(&SETUP.issuer));
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let sign = |header: &[u8], payload: &[u8]| {
        let message = format!("{}.{}", base64url(header), base64url(payload));
        let signature = SETUP.pair.sign(message.as_bytes());
        format!("{message}.{}", base64url(signature.as_ref()))
    };
    match mode % 3 {
        0 => check(rest, None),
        1 => check(sign(br#"{"alg":"EdDSA","kid":"k"}"#, rest).as_bytes(), Some(rest)),
        _ => {
            let at = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let (header, payload) = (&rest[..at], rest.get(at + 1..).unwrap_or_default());
            check(sign(header, payload).as_bytes(), Some(payload));
        }
    }
});
