//! Which way a call is translated, and what the endpoint needs.

use crate::dialect::Dialect;
use crate::request_format::RequestFormat;

/// Which way a call is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The caller uses chat completions, the endpoint messages.
    ChatToMessages,
    /// The caller uses messages, the endpoint chat completions.
    MessagesToChat,
}

/// The endpoint's protocol has no counterpart of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotServed;

/// What the endpoint needs in a translated request.
#[derive(Clone, Copy, Debug)]
pub struct EndpointOptions<'a> {
    /// The model's name at the endpoint; `None` = the caller's.
    pub model: Option<&'a str>,
    /// The cap where the caller set none and the endpoint's protocol requires one: the model's `output_tokens_max`; 0 = unknown.
    pub output_tokens_max: u32,
    /// The endpoint expects `max_completion_tokens` (OpenAI's own); others expect `max_tokens`.
    pub max_completion_tokens: bool,
    /// Request the engine's usage in every chunk.
    pub continuous_usage: bool,
}

/// For callers without `max_tokens` and models without a known maximum. The answer's `finish_reason` shows when it was too little.
pub(super) const MAX_TOKENS_DEFAULT: u32 = 4096;

impl Direction {
    /// `None` = bytes pass as they are.
    ///
    /// # Errors
    /// When the operation has no counterpart. A token count is not estimated, because callers plan their context with it.
    pub fn between(format: RequestFormat, endpoint: Dialect) -> Result<Option<Self>, NotServed> {
        match (format, endpoint) {
            (RequestFormat::Chat, Dialect::Anthropic) => Ok(Some(Self::ChatToMessages)),
            (RequestFormat::Message, Dialect::OpenAi) => Ok(Some(Self::MessagesToChat)),
            _ if format.dialect() == endpoint => Ok(None),
            _ => Err(NotServed),
        }
    }

    /// The format of the endpoint's request and answer.
    #[must_use]
    pub const fn endpoint_format(self) -> RequestFormat {
        match self {
            Self::ChatToMessages => RequestFormat::Message,
            Self::MessagesToChat => RequestFormat::Chat,
        }
    }

    /// The path at the endpoint, after `/v1`.
    #[must_use]
    pub const fn endpoint_path(self) -> &'static str {
        match self {
            Self::ChatToMessages => "/v1/messages",
            Self::MessagesToChat => "/v1/chat/completions",
        }
    }
}
