//! Authenticates callers by their API key.

use crate::key_text::KeyText;
use crate::refusal::Refusal;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tenon_snapshot::{Freshness, Key, Snapshot};

/// How long a strict key stays valid without contact to the control plane.
const STRICT_AGE_MAX: Duration = Duration::from_secs(10);

/// The time of a decision, and of the last contact with the control plane.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub unix_ms: i64,
    /// Time since the last contact of this process with the control plane; `None` = never.
    pub contact_age: Option<Duration>,
    /// The last contact of any process on this data directory.
    pub last_contact_unix_ms: i64,
    pub staleness_max: Duration,
}

impl Moment {
    #[must_use]
    pub fn now(freshness: &Freshness, unix_ms: i64, staleness_max: Duration) -> Self {
        Self { unix_ms, contact_age: freshness.age(), last_contact_unix_ms: freshness.last_contact_unix_ms(), staleness_max }
    }

    /// Uses the monotonic clock if it can, so that setting the wall clock back lengthens nothing.
    fn is_too_old(&self) -> bool {
        let by_wall = self.unix_ms.saturating_sub(self.last_contact_unix_ms);
        self.contact_age.map_or(i128::from(by_wall) > self.staleness_max.as_millis() as i128, |age| age > self.staleness_max)
    }
}

#[derive(Debug)]
pub enum Authentication {
    Known(Arc<Key>),
    /// Not known here; the control plane may know it.
    Unknown,
    Refused(Refusal),
}

#[must_use]
pub fn authenticate(snapshot: &Snapshot, text: &KeyText<'_>, now: &Moment) -> Authentication {
    let Some(key) = snapshot.key(&text.id) else {
        return Authentication::Unknown;
    };
    // The secret is checked first: only its holder may learn that a key was revoked or has expired.
    if !key.secret_sha256.is_some_and(|secret| bool::from(text.hash().ct_eq(&secret))) {
        return Authentication::Refused(Refusal::InvalidKey);
    }
    match check_validity(key, now) {
        Ok(()) => Authentication::Known(key.clone()),
        Err(refusal) => Authentication::Refused(refusal),
    }
}

/// For running calls: whether the key that they were admitted with is still valid.
///
/// # Errors
/// Why it would be refused now.
pub fn recheck(snapshot: &Snapshot, admitted: &Key, now: &Moment) -> Result<(), Refusal> {
    let key = snapshot.key(&admitted.id).ok_or(Refusal::Revoked)?;
    if std::ptr::eq(&raw const **key, admitted) {
        return check_validity(key, now);
    }
    let (current, admitted_record) = (&key.record, &admitted.record);
    if current.tenant_id != admitted_record.tenant_id
        || key.secret_sha256 != admitted.secret_sha256
        || current.federation != admitted_record.federation
    {
        return Err(Refusal::Revoked);
    }
    if !key.may_call_models() {
        return Err(Refusal::MayNotCall);
    }
    if admitted_record.federation.as_ref().is_some_and(|by| snapshot.issuer(&by.issuer_id).is_none_or(|issuer| issuer.verifier.is_none())) {
        return Err(Refusal::Revoked);
    }
    // If the caller came with a token, its expiry.
    if admitted.expires_unix_ms <= now.unix_ms {
        return Err(Refusal::Expired);
    }
    check_validity(key, now)
}

pub(crate) fn check_validity(key: &Key, now: &Moment) -> Result<(), Refusal> {
    if key.record.revoked {
        Err(Refusal::Revoked)
    } else if key.expires_unix_ms <= now.unix_ms {
        Err(Refusal::Expired)
    } else if key.record.strict && now.contact_age.is_none_or(|age| age > STRICT_AGE_MAX) {
        Err(Refusal::NotFresh)
    } else if now.is_too_old() {
        Err(Refusal::TooOld)
    } else {
        Ok(())
    }
}
