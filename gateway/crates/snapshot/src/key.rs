//! One API key as the data plane needs it, made ready for the hot path once, when it arrives.

use crate::marking::{MarkingSet, Markings};
use tenon_contract::{KeyKind, KeyRecord};

/// The public part of a key: 10 base62 characters.
pub type KeyId = [u8; 10];

#[derive(Debug, thiserror::Error)]
pub enum KeyRejected {
    #[error("its id is not 10 base62 characters")]
    Id,
    #[error("its hash is not 32 bytes")]
    Hash,
}

#[derive(Debug)]
pub struct Key {
    pub id: KeyId,
    pub secret_sha256: [u8; 32],
    pub record: KeyRecord,
    pub ceiling: MarkingSet,
    /// tenant, project, principal, key, session: written into the log as they stand (`usage` reads them back).
    pub parties: [Box<str>; 5],
    allowed_models: Box<[Box<str>]>,
}

impl Key {
    /// # Errors
    /// When the record cannot be a key. A tombstone needs no hash.
    pub fn compile(record: KeyRecord, markings: &mut Markings) -> Result<Self, KeyRejected> {
        let id = parse_id(&record.key_id).ok_or(KeyRejected::Id)?;
        let secret_sha256 = match <[u8; 32]>::try_from(&record.secret_sha256[..]) {
            Ok(hash) => hash,
            Err(_) if record.revoked => [0; 32],
            Err(_) => return Err(KeyRejected::Hash),
        };
        let ceiling = markings.set_of(&record.ceiling_markings);
        let mut allowed: Vec<Box<str>> = record.allowed_models.iter().map(|m| m.as_str().into()).collect();
        allowed.sort_unstable();
        let parties = [&record.tenant_id, &record.project_id, &record.principal_id, &record.key_id, &record.session_id];
        let parties = parties.map(|text| text.as_str().into());
        Ok(Self { id, secret_sha256, ceiling, parties, allowed_models: allowed.into(), record })
    }

    /// Whether the record's own list lets it; an empty list means every model routed for the tenant.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.allowed_models.is_empty() || self.allowed_models.binary_search_by(|m| (**m).cmp(model)).is_ok()
    }

    /// Decided by policy in the control plane. An agent's base key opens sessions and nothing else, whatever the flag says.
    #[must_use]
    pub fn may_call_models(&self) -> bool {
        self.record.may_call_models && self.record.kind() != KeyKind::Agent
    }
}

fn parse_id(text: &str) -> Option<KeyId> {
    let id = KeyId::try_from(text.as_bytes()).ok()?;
    id.iter().all(u8::is_ascii_alphanumeric).then_some(id)
}
