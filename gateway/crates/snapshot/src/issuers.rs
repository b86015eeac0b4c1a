//! The issuers whose tokens are trusted, and which credential a token's subject stands for.

use crate::key::{Key, KeyId};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use std::sync::Arc;
use tenon_contract as wire;
use tenon_jose::Issuer as Verifier;

/// An issuer's record and the verifier of its tokens. There is no verifier if the issuer is disabled or cannot be read.
#[derive(Debug)]
pub struct Issuer {
    pub record: wire::Issuer,
    pub verifier: Option<Verifier>,
}

impl Issuer {
    pub(crate) fn compile(record: wire::Issuer) -> Self {
        let compile = || {
            let (leeway, lifetime) = (record.leeway_ms, record.lifetime_max_ms);
            Verifier::compile(&record.issuer, &record.audiences, &record.algorithm, &record.jwks, leeway, lifetime)
                .inspect_err(|reason| tracing::error!(issuer_id = %record.issuer_id, "an issuer is not trusted: {reason}"))
                .ok()
        };
        let verifier = if record.disabled { None } else { compile() };
        Self { record, verifier }
    }

    pub(crate) fn is_unreadable(&self) -> bool {
        self.verifier.is_none() && !self.record.disabled
    }
}

/// Replaced with each changed issuer and each new federated credential. A cache of verified tokens compares the
/// pointer.
#[derive(Clone, Debug, Default)]
pub struct TrustedIssuers {
    by_id: HashMap<Box<str>, Arc<Issuer>, RandomState>,
    /// Issuers of different tenants may have the same name.
    by_name: HashMap<Box<str>, Vec<Arc<Issuer>>, RandomState>,
    subjects: HashMap<(Box<str>, Box<str>), KeyId, RandomState>,
}

impl TrustedIssuers {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    #[must_use]
    pub fn issuer(&self, issuer_id: &str) -> Option<&Arc<Issuer>> {
        self.by_id.get(issuer_id)
    }

    pub fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.by_id.values()
    }

    /// The issuers with this `iss`.
    #[must_use]
    pub fn named(&self, name: &str) -> &[Arc<Issuer>] {
        self.by_name.get(name).map_or(&[], |issuers| issuers)
    }

    /// The credential that stands for an issuer's subject.
    #[must_use]
    pub fn credential(&self, issuer_id: &str, subject: &str) -> Option<&KeyId> {
        self.subjects.get(&(issuer_id, subject) as &dyn Pair)
    }

    pub(crate) fn unreadable(&self) -> usize {
        self.issuers().filter(|issuer| issuer.is_unreadable()).count()
    }

    /// Inserts the issuer if it is newer than the one that is held.
    pub(crate) fn insert_if_newer(&mut self, record: wire::Issuer) -> bool {
        if self.issuer(&record.issuer_id).is_some_and(|held| held.record.revision >= record.revision) {
            return false;
        }
        let issuer = Arc::new(Issuer::compile(record));
        if let Some(old) = self.by_id.insert(issuer.record.issuer_id.as_str().into(), issuer.clone())
            && let Some(named) = self.by_name.get_mut(old.record.issuer.as_str())
        {
            named.retain(|other| other.record.issuer_id != old.record.issuer_id);
        }
        self.by_name.entry(issuer.record.issuer.as_str().into()).or_default().push(issuer);
        true
    }

    /// Whether the index of subjects must change for this key. A revoked credential never replaces another one.
    pub(crate) fn is_index_outdated(&self, key: &Key) -> bool {
        key.record.federation.as_ref().is_some_and(|federation| match self.credential(&federation.issuer_id, &federation.subject) {
            Some(held) => *held != key.id && !key.record.revoked,
            None => true,
        })
    }

    pub(crate) fn index_subject(&mut self, key: &Key) {
        if let Some(federation) = &key.record.federation {
            self.subjects.insert((federation.issuer_id.as_str().into(), federation.subject.as_str().into()), key.id);
        }
    }
}

/// Lets a pair of borrowed texts look up a pair of owned ones without an allocation.
trait Pair {
    fn pair(&self) -> (&str, &str);
}

impl Pair for (&str, &str) {
    fn pair(&self) -> (&str, &str) {
        *self
    }
}

impl Pair for (Box<str>, Box<str>) {
    fn pair(&self) -> (&str, &str) {
        (&self.0, &self.1)
    }
}

impl std::hash::Hash for dyn Pair + '_ {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.pair().hash(state);
    }
}

impl hashbrown::Equivalent<(Box<str>, Box<str>)> for dyn Pair + '_ {
    fn equivalent(&self, key: &(Box<str>, Box<str>)) -> bool {
        self.pair() == key.pair()
    }
}
