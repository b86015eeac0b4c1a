//! A second implementation of the control plane's keys.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use tenon_contract::{KeyKind, KeyRecord};

pub const SEALING_KEY: [u8; 32] = [0x42; 32];

#[derive(Clone, Debug)]
pub struct TestKey {
    pub text: String,
    pub record: KeyRecord,
}

impl TestKey {
    /// A key of tenant `tenant` that may call everything.
    pub fn new(id: &str, tenant: &str) -> Self {
        let head = format!("tnn_test_svc_{id}_{}", "s3cret".repeat(8).get(..43).unwrap());
        let mut rest = crc32fast::hash(head.as_bytes());
        let mut digits = Vec::new();
        for _ in 0..6 {
            digits.push(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(rest % 62) as usize]);
            rest /= 62;
        }
        digits.reverse();
        let text = head + std::str::from_utf8(&digits).unwrap();
        let hash = Sha256::digest([b"tenon-api-key-v1:", text.as_bytes()].concat());
        let record = KeyRecord {
            key_id: id.into(),
            secret_sha256: hash.to_vec(),
            tenant_id: tenant.into(),
            project_id: "019a0000-0000-7000-8000-0000000000b1".into(),
            principal_id: "019a0000-0000-7000-8000-0000000000c1".into(),
            kind: KeyKind::Service as i32,
            may_call_models: true,
            ..KeyRecord::default()
        };
        Self { text, record }
    }

    pub fn with(mut self, change: impl FnOnce(&mut KeyRecord)) -> Self {
        change(&mut self.record);
        self
    }
}

/// An endpoint's credential under the test's sealing key.
pub fn seal(credential: &str, endpoint_id: &str) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &SEALING_KEY).unwrap());
    let mut text = credential.as_bytes().to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([9; 12]), Aad::from(endpoint_id.as_bytes()), &mut text).unwrap();
    [&[9; 12], &text[..]].concat()
}
