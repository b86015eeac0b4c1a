//! One API key as the data plane needs it, prepared for the hot path once, when it arrives.

use crate::markings::{MarkingSet, Markings};
use crate::scope::{Scope, ScopeRejected};
use std::sync::Arc;
use tenon_contract::{KeyKind, KeyRecord};
use tenon_limits::{Owner, Rules, TenantRules};

/// The public part of a key: 10 base62 characters.
pub type KeyId = [u8; 10];

#[derive(Debug, thiserror::Error)]
pub enum KeyRejected {
    #[error("its id does not consist of 10 base62 characters")]
    Id,
    #[error("its hash does not have 32 bytes")]
    Hash,
    #[error("{0}")]
    Scope(#[from] ScopeRejected),
    #[error("it is federated but has a secret, or its subject is empty")]
    Federation,
}

#[derive(Clone, Debug)]
pub struct Key {
    pub id: KeyId,
    /// `None` for federated credentials, which have no text, and for tombstones.
    pub secret_sha256: Option<[u8; 32]>,
    pub scope: Scope,
    /// From then on the key is refused; `i64::MAX` = never.
    pub expires_unix_ms: i64,
    pub record: KeyRecord,
    pub ceiling: MarkingSet,
    /// tenant, project, principal, key, session: written to the usage log as they are.
    pub parties: [Box<str>; 5],
    allowed_models: Box<[Box<str>]>,
    /// Limits and hard budgets of every call with this key; `None` = none.
    pub rules: Option<Arc<Rules>>,
}

impl Key {
    /// # Errors
    /// When the record cannot be a key. A tombstone needs no hash.
    pub fn compile(record: KeyRecord, markings: &mut Markings) -> Result<Self, KeyRejected> {
        let id = parse_id(&record.key_id).ok_or(KeyRejected::Id)?;
        let secret_sha256 = match (<[u8; 32]>::try_from(&record.secret_sha256[..]), &record.federation) {
            (Ok(hash), None) => Some(hash),
            (Err(_), Some(federation)) if record.secret_sha256.is_empty() && !federation.subject.is_empty() => None,
            (_, Some(_)) => return Err(KeyRejected::Federation),
            (Err(_), None) if record.revoked => None,
            (Err(_), None) => return Err(KeyRejected::Hash),
        };
        let scope = Scope::compile(&record)?;
        let expires_unix_ms = if record.expires_at_unix_ms == 0 { i64::MAX } else { record.expires_at_unix_ms };
        let ceiling = markings.set_of(&record.ceiling_markings);
        let mut allowed: Vec<Box<str>> = record.allowed_models.iter().map(|m| m.as_str().into()).collect();
        allowed.sort_unstable();
        let parties = [&record.tenant_id, &record.project_id, &record.principal_id, &record.key_id, &record.session_id];
        let parties = parties.map(|text| text.as_str().into());
        Ok(Self { id, secret_sha256, scope, expires_unix_ms, ceiling, parties, allowed_models: allowed.into(), rules: None, record })
    }

    /// The same key with its tenant's current limits and budgets.
    #[must_use]
    pub fn with_rules(self, tenant: Option<&TenantRules>) -> Self {
        let [_, project_id, principal_id, key_id, _] = &self.parties;
        let rules = tenant.and_then(|tenant| tenant.of_key(&Owner { project_id, key_id, principal_id }));
        Self { rules, ..self }
    }

    /// The same key, for a caller whose token expires sooner.
    #[must_use]
    pub fn until(&self, unix_ms: i64) -> Self {
        Self { expires_unix_ms: self.expires_unix_ms.min(unix_ms), ..self.clone() }
    }

    /// Whether the key's own list contains the model. An empty list means every model routed for the tenant.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.allowed_models.is_empty() || self.allowed_models.binary_search_by(|m| (**m).cmp(model)).is_ok()
    }

    /// Decided by the policy of the control plane. An agent's base key only opens sessions, whatever the flag says.
    #[must_use]
    pub fn may_call_models(&self) -> bool {
        self.record.may_call_models && self.record.kind() != KeyKind::Agent
    }
}

fn parse_id(text: &str) -> Option<KeyId> {
    let id = KeyId::try_from(text.as_bytes()).ok()?;
    id.iter().all(u8::is_ascii_alphanumeric).then_some(id)
}
