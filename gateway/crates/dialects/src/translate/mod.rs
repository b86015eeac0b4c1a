//! OpenAI's chat completions to Anthropic's messages and back: requests, answers, streams and errors.
//!
//! Nothing is dropped silently: what has no counterpart is refused with the field's path; the few hints that change no answer and are
//! let go are listed in docs/reference/dialects.md. Values are copied as they stand in the text (a string keeps its escapes), so a
//! translation costs little more than the scan. Shapes are those of the official SDKs (openai 3.52, anthropic 2.12).

mod answer_to_chat;
mod answer_to_message;
mod chat_messages;
mod chat_request;
mod chunks;
mod errors;
mod events;
mod message_request;
mod message_turns;
mod node;
mod refused;
mod stream;
mod writer;

pub use refused::{Malformed, Refused};
pub use stream::Translator;

use crate::{Dialect, Form};

/// Which way a call is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The caller speaks chat completions, the endpoint messages.
    ChatToMessages,
    /// The caller speaks messages, the endpoint chat completions.
    MessagesToChat,
}

/// The endpoint's protocol has no counterpart of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotServed;

/// What the route adds to a request.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// The model's name at the endpoint; `None` = the caller's.
    pub model: Option<&'a str>,
    /// Where the caller gave no bound and the endpoint's protocol wants one: the model's `output_tokens_max`; 0 = unknown.
    pub output_tokens_max: u32,
    /// The endpoint wants `max_completion_tokens` (OpenAI's own); others know `max_tokens` best.
    pub max_completion_tokens: bool,
    /// Ask for the engine's numbers in every chunk.
    pub continuous_usage: bool,
}

/// For callers who gave no `max_tokens` and models of which no maximum is known. The answer's `finish_reason` tells when it was too little.
const MAX_TOKENS_DEFAULT: u32 = 4096;

impl Direction {
    /// `None` = bytes pass as they are.
    ///
    /// # Errors
    /// When a form has no counterpart in the endpoint's protocol. A count of tokens is not estimated: callers plan their context by it.
    pub fn between(form: Form, endpoint: Dialect) -> Result<Option<Self>, NotServed> {
        match (form, endpoint) {
            (Form::Chat, Dialect::Anthropic) => Ok(Some(Self::ChatToMessages)),
            (Form::Message, Dialect::OpenAi) => Ok(Some(Self::MessagesToChat)),
            _ if form.dialect() == endpoint => Ok(None),
            _ => Err(NotServed),
        }
    }

    /// The form of what the endpoint gets and answers.
    #[must_use]
    pub const fn endpoint_form(self) -> Form {
        match self {
            Self::ChatToMessages => Form::Message,
            Self::MessagesToChat => Form::Chat,
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

    /// A request that [`Form::scan`] let through.
    ///
    /// # Errors
    /// What has no counterpart, with its path.
    pub fn request(self, body: &[u8], route: &Route<'_>) -> Result<Vec<u8>, Refused> {
        let text = std::str::from_utf8(body).map_err(|_| Refused::syntax())?;
        match self {
            Self::ChatToMessages => chat_request::to_message(text, route),
            Self::MessagesToChat => message_request::to_chat(text, route),
        }
    }

    /// A whole answer of the endpoint. `created` in seconds, for OpenAI's field.
    ///
    /// # Errors
    /// When it is not of the endpoint's protocol, or holds what the other cannot say.
    pub fn answer(self, body: &[u8], created: u64) -> Result<Vec<u8>, Malformed> {
        match self {
            Self::ChatToMessages => answer_to_chat::translate(body, created),
            Self::MessagesToChat => answer_to_message::translate(body),
        }
    }

    /// An endpoint's refusal, in the caller's shape.
    #[must_use]
    pub fn error(self, status: u16, body: &[u8], request_id: &str) -> Vec<u8> {
        errors::translate(self, status, body, request_id)
    }
}
