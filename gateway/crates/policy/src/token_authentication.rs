//! Authenticates callers by a token of an issuer that their tenant trusts.

use crate::key_authentication::{Moment, check_validity};
use crate::refusal::Refusal;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use tenon_jose::{TOKEN_BYTES_MAX, TokenError, Unverified};
use tenon_snapshot::{Key, Snapshot, TrustedIssuers};

/// Issuers of one name with a matching audience: no more signatures than this are checked for one token.
const ISSUERS_MAX: usize = 8;
/// Tokens in each of two generations; a thread holds twice as many at most, some 2 MB.
const GENERATION: usize = 1_024;

/// Recently verified tokens by their SHA-256, so that each thread checks a token's signature once and not with every
/// call. All are dropped when an issuer or a federated credential changes.
#[derive(Debug, Default)]
pub struct VerifiedTokens {
    trust: Arc<TrustedIssuers>,
    young: HashMap<[u8; 32], VerifiedToken>,
    old: HashMap<[u8; 32], VerifiedToken>,
    /// The issuer whose unknown key the last token named.
    missing_key_of: Option<Box<str>>,
    /// Signature checks of invalid tokens.
    wasted_checks: u32,
}

#[derive(Clone, Debug)]
struct VerifiedToken {
    /// The credential that the token stands for. A new revision of it is another pointer.
    credential: Arc<Key>,
    /// The same credential, until the token expires.
    caller: Arc<Key>,
}

impl VerifiedTokens {
    fn find(&mut self, trust: &Arc<TrustedIssuers>, digest: &[u8; 32]) -> Option<VerifiedToken> {
        if !Arc::ptr_eq(&self.trust, trust) {
            *self = Self { trust: trust.clone(), ..Self::default() };
            return None;
        }
        if let Some(known) = self.young.get(digest) {
            return Some(known.clone());
        }
        let known = self.old.remove(digest)?;
        self.insert(*digest, known.clone());
        Some(known)
    }

    /// The issuer whose keys may have been renewed since they were received. Report it to the control plane, but
    /// seldom.
    pub fn take_missing_key(&mut self) -> Option<Box<str>> {
        self.missing_key_of.take()
    }

    /// Signature checks of invalid tokens since the last call.
    pub fn take_failed_checks(&mut self) -> u32 {
        std::mem::take(&mut self.wasted_checks)
    }

    fn insert(&mut self, digest: [u8; 32], known: VerifiedToken) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, known);
    }
}

/// The credential that a token stands for, expiring with the token. `may_check` is called before a signature is
/// checked.
///
/// # Errors
/// Why the token is not valid, or why its credential is refused.
pub fn authenticate_token(
    snapshot: &Snapshot,
    token: &[u8],
    now: &Moment,
    verified: &mut VerifiedTokens,
    may_check: impl FnOnce() -> bool,
) -> Result<Arc<Key>, Refusal> {
    let trust = snapshot.trusted_issuers();
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Token(TokenError::TooLarge));
    }
    let digest: [u8; 32] = Sha256::digest(token).into();
    if let Some(known) = verified.find(trust, &digest)
        && snapshot.key(&known.credential.id).is_some_and(|held| Arc::ptr_eq(held, &known.credential))
        && known.caller.expires_unix_ms > now.unix_ms
    {
        check_validity(&known.credential, now)?;
        return Ok(known.caller);
    }
    if !may_check() {
        return Err(Refusal::TooManyInvalidTokens);
    }
    let (credential, expires_unix_ms) = verify(snapshot, trust, token, now.unix_ms, verified)?;
    check_validity(&credential, now)?;
    let caller = Arc::new(credential.until(expires_unix_ms));
    verified.insert(digest, VerifiedToken { credential, caller: caller.clone() });
    Ok(caller)
}

fn verify(
    snapshot: &Snapshot,
    trust: &TrustedIssuers,
    token: &[u8],
    now_unix_ms: i64,
    verified: &mut VerifiedTokens,
) -> Result<(Arc<Key>, i64), Refusal> {
    let token = Unverified::parse(token).map_err(Refusal::Token)?;
    let issuers = trust.named(token.claimed_issuer().unwrap_or_default());
    let mut refused = Refusal::Token(TokenError::Issuer);
    let mut matched: Option<(Arc<Key>, i64)> = None;
    let mut wasted = 0;
    let verifiers = issuers.iter().filter_map(|issuer| Some((issuer, issuer.verifier.as_ref()?)));
    let candidates = verifiers.filter(|(_, verifier)| issuers.len() == 1 || token.names_audience_of(verifier));
    for (issuer, verifier) in candidates.take(ISSUERS_MAX) {
        let claims = match token.verify(verifier, now_unix_ms) {
            Ok(claims) => claims,
            Err(reason) => {
                wasted += u32::from(is_after_signature(reason));
                if reason == TokenError::Key {
                    verified.missing_key_of = Some(issuer.record.issuer_id.as_str().into());
                }
                refused = Refusal::Token(reason);
                continue;
            }
        };
        let credential = trust.credential(&issuer.record.issuer_id, &claims.subject).and_then(|id| snapshot.key(id));
        match credential.filter(|key| stands_for(key, issuer, &claims.subject)) {
            Some(_) if matched.is_some() => return Err(Refusal::SubjectAmbiguous),
            Some(key) => matched = Some((key.clone(), claims.expires_unix_ms)),
            None => {
                wasted += 1;
                refused = Refusal::SubjectUnknown;
            }
        }
    }
    if matched.is_none() {
        verified.wasted_checks += wasted;
    }
    matched.ok_or(refused)
}

/// Whether the signature was checked before the token was refused. A valid signature over invalid claims costs as much.
fn is_after_signature(reason: TokenError) -> bool {
    use TokenError::{Audience, Claims, Expired, Issuer, Lifetime, NotYet, Signature, Subject};
    matches!(reason, Signature | Claims | Issuer | Audience | Expired | NotYet | Lifetime | Subject)
}

/// The index may be older than the key's record, and an issuer vouches only for its own tenant.
fn stands_for(key: &Key, issuer: &tenon_snapshot::Issuer, subject: &str) -> bool {
    let federated = key.record.federation.as_ref().is_some_and(|by| by.issuer_id == issuer.record.issuer_id && by.subject == subject);
    federated && key.record.tenant_id == issuer.record.tenant_id
}
