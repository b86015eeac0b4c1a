//! Why a body is refused.

use crate::json::{DEPTH_MAX, Fault};
use tenon_problem::ProblemCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error("The body is not valid JSON.")]
    Syntax,
    #[error("The body must be a JSON object.")]
    NotObject,
    #[error("The body is nested deeper than {DEPTH_MAX} levels.")]
    Depth,
    #[error("There are bytes after the JSON object.")]
    Trailing,
    #[error("The key `{0}` appears twice. Send it once.")]
    Duplicate(&'static str),
    #[error("Keys with escape sequences are not accepted. Write them without escapes.")]
    EscapedKey,
    #[error("`{0}` must be {1}.")]
    Type(&'static str, &'static str),
    #[error("`{0}` is missing.")]
    Missing(&'static str),
    #[error("The body is not valid UTF-8.")]
    Utf8,
    #[error("`{0}` refers to state kept at the provider, where all callers share one account. Send the whole conversation in the request.")]
    ProviderState(&'static str),
    #[error("`{0}` requests a tool that the provider runs and bills separately. Only tools that the caller runs are served.")]
    HostedTool(&'static str),
}

impl ScanError {
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Duplicate(key) | Self::Type(key, _) | Self::Missing(key) | Self::ProviderState(key) | Self::HostedTool(key) => Some(key),
            _ => None,
        }
    }

    #[must_use]
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::Syntax | Self::NotObject | Self::Trailing | Self::Utf8 => ProblemCode::InvalidJson,
            Self::Depth => ProblemCode::JsonTooDeep,
            Self::Duplicate(_) => ProblemCode::DuplicateKey,
            Self::EscapedKey => ProblemCode::EscapedKey,
            Self::Type(..) => ProblemCode::InvalidType,
            Self::Missing(_) => ProblemCode::MissingParameter,
            Self::ProviderState(_) => ProblemCode::ProviderStateNotServed,
            Self::HostedTool(_) => ProblemCode::HostedToolNotServed,
        }
    }
}

impl From<Fault> for ScanError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Syntax => Self::Syntax,
            Fault::Depth => Self::Depth,
        }
    }
}
