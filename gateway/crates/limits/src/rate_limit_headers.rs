//! What is left of a caller's limits, as headers: `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10) and, on
//! request, OpenAI's `x-ratelimit-*`, which some users of their SDKs read. Those six headers cost as much as all
//! limits, so they are optional.
//!
//! Quotas are the fleet's and remainders this process's, because a caller needs to know what is available here and now.

use crate::admission::ApplicableRules;
use crate::limit::{Limit, LimitKind};
use crate::rules::KINDS;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// The limit that has the least left in one respect.
struct Tightest<'a> {
    limit: &'a Limit,
    name: &'a str,
    remaining: u64,
}

impl ApplicableRules {
    /// Adds the policies of all limits that apply, and the remainder of the limit that has the least left in each
    /// respect. Costs nothing if no limit applies.
    pub fn add_headers(&self, headers: &mut HeaderMap, now_us: u64, as_openai_too: bool) {
        let mut tightest: [Option<Tightest<'_>>; 3] = [const { None }; 3];
        let mut has_limits = false;
        for rules in self.rules().filter(|rules| !rules.limits.is_empty()) {
            has_limits = true;
            if let Some(policy) = rules.policy() {
                headers.append(POLICY, policy.clone());
            }
            for (limit, names) in rules.limits.iter().zip(&rules.names) {
                update_tightest(limit, names, now_us, &mut tightest);
            }
        }
        if has_limits {
            add_tightest(headers, &tightest, now_us, as_openai_too);
        }
    }
}

fn update_tightest<'a>(limit: &'a Limit, names: &'a [Box<str>; 3], now_us: u64, tightest: &mut [Option<Tightest<'a>>; 3]) {
    for ((kind, name), tightest) in KINDS.into_iter().zip(names).zip(tightest) {
        if limit.of_fleet(kind) == 0 {
            continue;
        }
        let remaining = limit.remaining(kind, now_us);
        if tightest.as_ref().is_none_or(|other| remaining < other.remaining) {
            *tightest = Some(Tightest { limit, name, remaining });
        }
    }
}

/// Does not use `format!`, because it runs with every call, and formatting took as long as all the limits.
fn add_tightest(headers: &mut HeaderMap, tightest: &[Option<Tightest<'_>>; 3], now_us: u64, as_openai_too: bool) {
    let mut line = Vec::with_capacity(192);
    let mut digits = itoa::Buffer::new();
    for (kind, tightest) in KINDS.into_iter().zip(tightest) {
        let Some(Tightest { limit, name, remaining }) = tightest else {
            continue;
        };
        let separator: &[u8] = if line.is_empty() { b"" } else { b", " };
        for part in [separator, name.as_bytes(), b";r=", digits.format(*remaining).as_bytes()] {
            line.extend_from_slice(part);
        }
        let [of_fleet, left, reset] = match kind {
            LimitKind::Requests => REQUESTS,
            LimitKind::Tokens => TOKENS,
            LimitKind::Concurrency => continue,
        };
        let whole_in = limit.whole_in_us(kind, now_us).div_ceil(1_000_000);
        line.extend_from_slice(b";t=");
        line.extend_from_slice(digits.format(whole_in).as_bytes());
        if !as_openai_too {
            continue;
        }
        headers.insert(of_fleet, limit.of_fleet(kind).into());
        headers.insert(left, (*remaining).into());
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(go_duration(whole_in, &mut digits))) {
            headers.insert(reset, value);
        }
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(line)) {
        headers.insert(RATE_LIMIT, value);
    }
}

/// A duration in the notation of Go, as OpenAI sends it.
fn go_duration(seconds: u64, digits: &mut itoa::Buffer) -> Vec<u8> {
    let mut text = Vec::with_capacity(24);
    if seconds >= 60 {
        text.extend_from_slice(digits.format(seconds / 60).as_bytes());
        text.push(b'm');
    }
    text.extend_from_slice(digits.format(if seconds >= 60 { seconds % 60 } else { seconds }).as_bytes());
    text.push(b's');
    text
}
