//! Who is calling: the key's text, the snapshot, and for a key nobody knows yet one question.

use crate::answer::header_of::API_KEY;
use crate::problem::Problem;
use crate::worker::Worker;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::sync::Arc;
use tenon_control::Resolution;
use tenon_policy::{KeyText, Refusal, Verdict};
use tenon_snapshot::Key;

/// # Errors
/// 401 for what is no key of ours, 503 when it cannot be told.
pub async fn authenticate(worker: &Worker, headers: &HeaderMap) -> Result<Arc<Key>, Problem> {
    let text = presented(headers).ok_or(Refusal::MissingKey)?;
    let text = KeyText::parse(text).ok_or(Refusal::InvalidKey)?;
    match look(worker, &text) {
        Verdict::Known(key) => return Ok(key),
        Verdict::Refused(refusal) => return Err(refusal.into()),
        Verdict::Unknown => {}
    }
    match worker.asker.resolve(text.id).await {
        Resolution::Held => match look(worker, &text) {
            Verdict::Known(key) => Ok(key),
            Verdict::Refused(refusal) => Err(refusal.into()),
            Verdict::Unknown => Err(Refusal::InvalidKey.into()),
        },
        Resolution::Unknown => Err(Refusal::InvalidKey.into()),
        Resolution::Unavailable => Err(Refusal::Unresolvable.into()),
    }
}

fn look(worker: &Worker, text: &KeyText<'_>) -> Verdict {
    let snapshot = worker.snapshots.load();
    match tenon_policy::authenticate(&snapshot, text, &worker.moment()) {
        // The control plane may have been heard since the last sweep: nobody is refused for a clock that is some milliseconds old.
        Verdict::Refused(Refusal::NotFresh | Refusal::TooOld) => {
            worker.tick();
            tenon_policy::authenticate(&snapshot, text, &worker.moment())
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
