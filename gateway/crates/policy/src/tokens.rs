//! Callers that prove themselves by a token of an issuer their tenant trusts.

use crate::authentication::{Moment, standing};
use crate::refusal::Refusal;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use tenon_jose::{TOKEN_BYTES_MAX, TokenError, Unverified};
use tenon_snapshot::{Key, Snapshot, Trust};

/// Issuers of one name whose audience fits: more signatures than this are not checked for one token.
const ISSUERS_MAX: usize = 8;
/// Tokens in each of two generations; a thread holds twice as many at most, some 2 MB.
const GENERATION: usize = 1_024;

/// Tokens verified a moment ago, each found by its own SHA-256, so that a signature is checked once a token and thread and not once a call.
/// All are forgotten when an issuer or a federated credential changes.
#[derive(Debug, Default)]
pub struct VerifiedTokens {
    trust: Arc<Trust>,
    young: HashMap<[u8; 32], Known>,
    old: HashMap<[u8; 32], Known>,
    /// The last token named a key that this issuer is not known to have.
    missing_key_of: Option<Box<str>>,
    /// Signatures of the last token that were checked for nothing.
    wasted: u32,
}

#[derive(Clone, Debug)]
struct Known {
    /// The credential it was verified for: another revision of it is another pointer.
    credential: Arc<Key>,
    /// The same, until the token ends.
    caller: Arc<Key>,
}

impl VerifiedTokens {
    fn find(&mut self, trust: &Arc<Trust>, digest: &[u8; 32]) -> Option<Known> {
        if !Arc::ptr_eq(&self.trust, trust) {
            *self = Self { trust: trust.clone(), ..Self::default() };
            return None;
        }
        if let Some(known) = self.young.get(digest) {
            return Some(known.clone());
        }
        let known = self.old.remove(digest)?;
        self.keep(*digest, known.clone());
        Some(known)
    }

    /// The issuer whose keys may have been renewed since they were told: worth asking for, seldom.
    pub fn take_missing_key(&mut self) -> Option<Box<str>> {
        self.missing_key_of.take()
    }

    /// Signatures that were checked for nothing since this was asked last.
    pub fn take_wasted(&mut self) -> u32 {
        std::mem::take(&mut self.wasted)
    }

    fn keep(&mut self, digest: [u8; 32], known: Known) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, known);
    }
}

/// The credential that a token stands for, bound to the token's end. `may_check` is asked before a signature is checked.
///
/// # Errors
/// Why it is not believed, or why its credential is refused.
pub fn authenticate_token(
    snapshot: &Snapshot,
    token: &[u8],
    now: &Moment,
    verified: &mut VerifiedTokens,
    may_check: impl FnOnce() -> bool,
) -> Result<Arc<Key>, Refusal> {
    let trust = snapshot.trust();
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Token(TokenError::TooLarge));
    }
    let digest: [u8; 32] = Sha256::digest(token).into();
    if let Some(known) = verified.find(trust, &digest)
        && snapshot.key(&known.credential.id).is_some_and(|held| Arc::ptr_eq(held, &known.credential))
        && known.caller.expires_unix_ms > now.unix_ms
    {
        standing(&known.credential, now)?;
        return Ok(known.caller);
    }
    if !may_check() {
        return Err(Refusal::TooManyForgeries);
    }
    let (credential, expires_unix_ms) = verify(snapshot, trust, token, now.unix_ms, verified)?;
    standing(&credential, now)?;
    let caller = Arc::new(credential.until(expires_unix_ms));
    verified.keep(digest, Known { credential, caller: caller.clone() });
    Ok(caller)
}

fn verify(snapshot: &Snapshot, trust: &Trust, token: &[u8], now_unix_ms: i64, verified: &mut VerifiedTokens) -> Result<(Arc<Key>, i64), Refusal> {
    let token = Unverified::parse(token).map_err(Refusal::Token)?;
    let issuers = trust.named(token.claimed_issuer().unwrap_or_default());
    let mut refused = Refusal::Token(TokenError::Issuer);
    let mut found: Option<(Arc<Key>, i64)> = None;
    let mut wasted = 0;
    let verifiers = issuers.iter().filter_map(|issuer| Some((issuer, issuer.verifier.as_ref()?)));
    let meant = verifiers.filter(|(_, verifier)| issuers.len() == 1 || token.names_audience_of(verifier));
    for (issuer, verifier) in meant.take(ISSUERS_MAX) {
        let claims = match token.verify(verifier, now_unix_ms) {
            Ok(claims) => claims,
            Err(why) => {
                wasted += u32::from(is_after_signature(why));
                if why == TokenError::Key {
                    verified.missing_key_of = Some(issuer.record.issuer_id.as_str().into());
                }
                refused = Refusal::Token(why);
                continue;
            }
        };
        let credential = trust.credential(&issuer.record.issuer_id, &claims.subject).and_then(|id| snapshot.key(id));
        match credential.filter(|key| stands_for(key, issuer, &claims.subject)) {
            Some(_) if found.is_some() => return Err(Refusal::SubjectAmbiguous),
            Some(key) => found = Some((key.clone(), claims.expires_unix_ms)),
            None => {
                wasted += 1;
                refused = Refusal::SubjectUnknown;
            }
        }
    }
    if found.is_none() {
        verified.wasted += wasted;
    }
    found.ok_or(refused)
}

/// Of one issuer's verdict: the work was done. A good signature under claims that are not serves for a flood as well.
fn is_after_signature(why: TokenError) -> bool {
    use TokenError::{Audience, Claims, Expired, Issuer, Lifetime, NotYet, Signature, Subject};
    matches!(why, Signature | Claims | Issuer | Audience | Expired | NotYet | Lifetime | Subject)
}

/// The index may lag behind a key's record, and an issuer's keys speak for its own tenant only.
fn stands_for(key: &Key, issuer: &tenon_snapshot::Issuer, subject: &str) -> bool {
    let federated = key.record.federation.as_ref().is_some_and(|by| by.issuer_id == issuer.record.issuer_id && by.subject == subject);
    federated && key.record.tenant_id == issuer.record.tenant_id
}
