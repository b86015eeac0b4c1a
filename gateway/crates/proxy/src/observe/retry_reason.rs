//! Why a call is tried again, as the failover decides by it and the metrics count it.

/// Why an attempt is followed by another: index into [`RETRIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    Connect,
    /// 429.
    Limited,
    /// 503, 529.
    Overloaded,
    /// 401, 403, 407: our credential is not taken there.
    Credential,
    /// Other 5xx.
    Status,
    /// The connection broke before the first bytes of an answer.
    Reset,
    Timeout,
    /// Nothing was sent: the endpoint's dialect has no words for it.
    Untranslatable,
}

pub const RETRIES: [&str; 8] = ["connect", "limited", "overloaded", "credential", "status", "reset", "timeout", "untranslatable"];

impl RetryReason {
    pub fn of_status(status: u16) -> Option<Self> {
        match status {
            429 => Some(Self::Limited),
            503 | 529 => Some(Self::Overloaded),
            401 | 403 | 407 => Some(Self::Credential),
            500..=599 => Some(Self::Status),
            _ => None,
        }
    }

    /// The upstream may have worked on it: repeating is the operator's decision.
    pub fn is_doubtful(self) -> bool {
        matches!(self, Self::Status | Self::Reset | Self::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_did_wrong_is_not_tried_elsewhere() {
        for status in [200, 400, 402, 404, 408, 409, 413, 422] {
            assert_eq!(RetryReason::of_status(status), None, "{status}");
        }
        assert!([429, 503, 529, 401].iter().all(|status| !RetryReason::of_status(*status).unwrap().is_doubtful()));
        assert!([500, 502, 504].iter().all(|status| RetryReason::of_status(*status).unwrap().is_doubtful()));
    }
}
