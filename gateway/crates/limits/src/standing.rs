//! How a caller stands to its limits, as headers: `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10) and OpenAI's `x-ratelimit-*`,
//! which their SDKs' users look at.
//!
//! Quotas are the fleet's, remainders this process's: what can be had here and now, which is what a caller needs to know.

use crate::admission::Applies;
use crate::limit::{Kind, Limit};
use crate::rules::{KINDS, name_of, nth_of};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write;
use std::sync::Arc;

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

/// Of one limit, in one respect.
struct Standing {
    of_fleet: u64,
    remaining: u64,
    whole_in_us: u64,
}

impl Applies {
    /// Adds the headers of every limit that applies. Costs nothing where none does.
    pub fn tell(&self, headers: &mut HeaderMap, now_us: u64) {
        let mut line = String::new();
        let mut tightest: [Option<Standing>; 3] = [const { None }; 3];
        for rules in self.rules().filter(|rules| !rules.limits.is_empty()) {
            if let Some(policy) = rules.policy() {
                headers.append(POLICY, policy.clone());
            }
            for index in 0..rules.limits.len() {
                tell_limit(&rules.limits, index, now_us, &mut line, &mut tightest);
            }
        }
        if let Some(value) = HeaderValue::from_str(&line).ok().filter(|value| !value.is_empty()) {
            headers.insert(RATE_LIMIT, value);
        }
        for (names, standing) in [REQUESTS, TOKENS].into_iter().zip(&tightest) {
            if let Some(standing) = standing {
                tell_openai(headers, names, standing);
            }
        }
    }
}

fn tell_limit(limits: &[Arc<Limit>], index: usize, now_us: u64, line: &mut String, tightest: &mut [Option<Standing>; 3]) {
    let limit = &limits[index];
    for (kind, tightest) in KINDS.into_iter().zip(tightest) {
        let of_fleet = limit.of_fleet(kind);
        if of_fleet == 0 {
            continue;
        }
        let standing = Standing { of_fleet, remaining: limit.remaining(kind, now_us), whole_in_us: limit.whole_in_us(kind, now_us) };
        if !line.is_empty() {
            line.push_str(", ");
        }
        name_of(limit, kind, nth_of(limits, index), line);
        // Writing to a string does not fail.
        let _ = write!(line, ";r={}", standing.remaining);
        if kind != Kind::Concurrency {
            let _ = write!(line, ";t={}", standing.whole_in_us.div_ceil(1_000_000));
        }
        if tightest.as_ref().is_none_or(|other| standing.remaining < other.remaining) {
            *tightest = Some(standing);
        }
    }
}

fn tell_openai(headers: &mut HeaderMap, [limit, remaining, reset]: [HeaderName; 3], standing: &Standing) {
    headers.insert(limit, standing.of_fleet.into());
    headers.insert(remaining, standing.remaining.into());
    // As theirs: a duration in the notation of Go.
    let seconds = standing.whole_in_us.div_ceil(1_000_000);
    let text = if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) };
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(reset, value);
    }
}
