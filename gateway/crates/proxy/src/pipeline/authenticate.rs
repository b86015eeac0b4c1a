//! Who is calling: by the key's text or a token, from the snapshot; a key that is not in it is asked of the control plane once.

use crate::base::headers::API_KEY;
use crate::base::peer::Peer;
use crate::base::problem::Problem;
use crate::reactor::clock::Clock;
use crate::reactor::credentials::Credentials;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::sync::Arc;
use std::time::Duration;
use tenon_control::Resolution;
use tenon_policy::{Authentication, KeyText, Refusal, Source, TokenError, authenticate_token, check_scope};
use tenon_snapshot::Key;
use tenon_usage::Operation;

/// The caller's key, if it may call models, by this peer and for this operation (`Unspecified`: for what every such key may do).
///
/// # Errors
/// 401 for what is no credential of ours, 403 for one that is bound to something else, 503 when that cannot be decided now.
pub async fn authenticate(
    credentials: &Credentials,
    clock: &Clock,
    headers: &HeaderMap,
    peer: &Peer,
    operation: Operation,
) -> Result<Arc<Key>, Problem> {
    let key = identify(credentials, clock, headers, peer).await?;
    check_scope(&key, operation, peer.certificate_sha256.as_ref(), || peer.caller(headers, credentials.trusted_proxies()))?;
    if key.may_call_models() { Ok(key) } else { Err(Refusal::MayNotCall.into()) }
}

async fn identify(credentials: &Credentials, clock: &Clock, headers: &HeaderMap, peer: &Peer) -> Result<Arc<Key>, Problem> {
    let text = presented(headers).ok_or(Refusal::MissingKey)?;
    let Some(key) = KeyText::parse(text) else {
        // Our keys have no full stops, tokens have two.
        return if text.contains(&b'.') {
            check_token(credentials, clock, text, || peer.caller(headers, credentials.trusted_proxies()).into())
        } else {
            Err(Refusal::InvalidKey.into())
        };
    };
    match check_key(credentials, clock, &key) {
        Authentication::Known(key) => return Ok(key),
        Authentication::Refused(refusal) => return Err(refusal.into()),
        Authentication::Unknown => {}
    }
    match credentials.resolver().resolve(key.id).await {
        Resolution::Held => match check_key(credentials, clock, &key) {
            Authentication::Known(key) => Ok(key),
            Authentication::Refused(refusal) => Err(refusal.into()),
            Authentication::Unknown => Err(Refusal::InvalidKey.into()),
        },
        Resolution::Unknown => Err(Refusal::InvalidKey.into()),
        Resolution::Unavailable => Err(Refusal::Unresolvable.into()),
    }
}

/// `source` is called only for a token that was not seen before: callers whose token is known pay nothing for token_failures of others.
fn check_token(credentials: &Credentials, clock: &Clock, token: &[u8], source: impl Fn() -> Source) -> Result<Arc<Key>, Problem> {
    let snapshot = credentials.snapshots().load();
    let mut verified = credentials.verified_tokens.borrow_mut();
    let may_check = || !credentials.token_failures.borrow().is_spent(source(), clock.balance_ms());
    let verdict = match authenticate_token(&snapshot, token, &clock.moment(), &mut verified, may_check) {
        // As in `check_key`; and a token may be younger than the clock, which was read some milliseconds ago.
        Err(Refusal::NotFresh | Refusal::TooOld | Refusal::Token(TokenError::NotYet)) => {
            clock.tick();
            authenticate_token(&snapshot, token, &clock.moment(), &mut verified, may_check)
        }
        verdict => verdict,
    };
    if let Some(issuer_id) = verified.take_missing_key() {
        credentials.resolver().report_missing_key(issuer_id);
    }
    let wasted = verified.take_failed_checks();
    if wasted > 0 {
        credentials.token_failures.borrow_mut().count(source(), wasted, clock.balance_ms());
    }
    verdict.map_err(|refusal| match refusal {
        Refusal::TooManyInvalidTokens => Problem::from(refusal).after(Duration::from_secs(1)),
        refusal => refusal.into(),
    })
}

fn check_key(credentials: &Credentials, clock: &Clock, text: &KeyText<'_>) -> Authentication {
    let snapshot = credentials.snapshots().load();
    match tenon_policy::authenticate(&snapshot, text, &clock.moment()) {
        // The control plane may have answered since the last sweep: a clock some milliseconds old is no reason to refuse.
        Authentication::Refused(Refusal::NotFresh | Refusal::TooOld) => {
            clock.tick();
            tenon_policy::authenticate(&snapshot, text, &clock.moment())
        }
        verdict => verdict,
    }
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).and_then(|value| {
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    bearer.or_else(|| headers.get(API_KEY).map(|value| value.as_bytes()))
}
