//! An identity provider: signs tokens and publishes its key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};
use tenon_contract::{Federation, Issuer};

pub struct IdentityProvider {
    pair: EcdsaKeyPair,
    kid: String,
}

/// Seconds since 1970, and this many more.
pub fn in_seconds(seconds: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + seconds
}

impl IdentityProvider {
    pub const NAME: &str = "https://idp.example";

    pub fn new(kid: &str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self { pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap(), kid: kid.to_owned() }
    }

    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])})
    }

    /// The issuer as the control plane sends it, with this provider's key and those of others.
    pub fn issuer(&self, issuer_id: &str, tenant_id: &str, others: &[&Self]) -> Issuer {
        let keys: Vec<Value> = others.iter().copied().chain([self]).map(Self::jwk).collect();
        Issuer {
            issuer_id: issuer_id.into(),
            tenant_id: tenant_id.into(),
            issuer: Self::NAME.into(),
            audiences: vec!["tenon".into()],
            algorithm: "ES256".into(),
            jwks: json!({ "keys": keys }).to_string().into_bytes(),
            ..Issuer::default()
        }
    }

    /// A valid token of five minutes with these changes.
    pub fn token(&self, changes: &Value) -> String {
        let mut claims = json!({"iss": Self::NAME, "aud": "tenon", "sub": "robot", "iat": in_seconds(0), "exp": in_seconds(300)});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({"alg": "ES256", "kid": self.kid});
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string().as_bytes()), URL_SAFE_NO_PAD.encode(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Makes a key's record the credential of an issuer's subject.
pub fn federate(record: &mut tenon_contract::KeyRecord, issuer_id: &str, subject: &str) {
    record.secret_sha256.clear();
    record.federation = Some(Federation { issuer_id: issuer_id.into(), subject: subject.into() });
}
