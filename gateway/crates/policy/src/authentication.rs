//! Who is calling.

use crate::key_text::KeyText;
use crate::refusal::Refusal;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tenon_snapshot::{Freshness, Key, Snapshot};

/// How long a strict key lives without a word from the control plane.
const STRICT_AGE_MAX: Duration = Duration::from_secs(10);

/// The time, as far as decisions need it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub unix_ms: i64,
    /// Since the control plane was heard by this process; `None` = never.
    pub heard_age: Option<Duration>,
    /// When it was last heard by any process on this data directory.
    pub heard_unix_ms: i64,
    pub staleness_max: Duration,
}

impl Moment {
    #[must_use]
    pub fn now(freshness: &Freshness, unix_ms: i64, staleness_max: Duration) -> Self {
        Self { unix_ms, heard_age: freshness.age(), heard_unix_ms: freshness.heard_unix_ms(), staleness_max }
    }

    /// By the monotonic clock where there is one: setting the wall clock back must not lengthen anything.
    fn too_old(&self) -> bool {
        let by_wall = self.unix_ms.saturating_sub(self.heard_unix_ms);
        self.heard_age.map_or(i128::from(by_wall) > self.staleness_max.as_millis() as i128, |age| age > self.staleness_max)
    }
}

#[derive(Debug)]
pub enum Verdict {
    Known(Arc<Key>),
    /// Not held: the control plane may know it.
    Unknown,
    Refused(Refusal),
}

#[must_use]
pub fn authenticate(snapshot: &Snapshot, text: &KeyText<'_>, now: &Moment) -> Verdict {
    let Some(key) = snapshot.key(&text.id) else {
        return Verdict::Unknown;
    };
    // The secret first: only its holder learns that a key was revoked or has expired.
    if !key.secret_sha256.is_some_and(|secret| bool::from(text.hash().ct_eq(&secret))) {
        return Verdict::Refused(Refusal::InvalidKey);
    }
    match standing(key, now) {
        Ok(()) => Verdict::Known(key.clone()),
        Err(refusal) => Verdict::Refused(refusal),
    }
}

/// For calls that run: does the key they were admitted with still stand?
///
/// # Errors
/// What it would be refused for now.
pub fn recheck(snapshot: &Snapshot, admitted: &Key, now: &Moment) -> Result<(), Refusal> {
    let key = snapshot.key(&admitted.id).ok_or(Refusal::Revoked)?;
    if std::ptr::eq(&raw const **key, admitted) {
        return standing(key, now);
    }
    let (held, told) = (&key.record, &admitted.record);
    if held.tenant_id != told.tenant_id || key.secret_sha256 != admitted.secret_sha256 || held.federation != told.federation {
        return Err(Refusal::Revoked);
    }
    if !key.may_call_models() {
        return Err(Refusal::MayNotCall);
    }
    if told.federation.as_ref().is_some_and(|by| snapshot.issuer(&by.issuer_id).is_none_or(|issuer| issuer.verifier.is_none())) {
        return Err(Refusal::Revoked);
    }
    // A token's own end, where the key came by one.
    if admitted.expires_unix_ms <= now.unix_ms {
        return Err(Refusal::Expired);
    }
    standing(key, now)
}

pub(crate) fn standing(key: &Key, now: &Moment) -> Result<(), Refusal> {
    if key.record.revoked {
        Err(Refusal::Revoked)
    } else if key.expires_unix_ms <= now.unix_ms {
        Err(Refusal::Expired)
    } else if key.record.strict && now.heard_age.is_none_or(|age| age > STRICT_AGE_MAX) {
        Err(Refusal::NotFresh)
    } else if now.too_old() {
        Err(Refusal::TooOld)
    } else {
        Ok(())
    }
}
