//! OpenAI's chat completions to Anthropic's messages and back: requests, answers, streams and errors.
//!
//! Nothing is dropped silently: a field without a counterpart is refused with its path. The few hints that change no answer and are
//! ignored are listed in docs/reference/dialects.md. Values are copied as they are written (a string keeps its escapes), so a
//! translation costs little more than the scan. Shapes are those of the official SDKs (openai 3.52, anthropic 2.12).

mod direction;
mod error;
mod node;
mod writer;
mod errors;
mod chat_messages;
mod chat_request;
mod message_turns;
mod message_request;
mod answer_to_chat;
mod answer_to_message;
mod events_to_chunks;
mod chunks_to_events;
mod stream;

pub use direction::{Direction, EndpointOptions, NotServed};
pub use error::{MalformedAnswer, TranslationError};
pub use stream::Translator;

impl Direction {
    /// A request that [`crate::RequestFormat::scan`] let through.
    ///
    /// # Errors
    /// When a field has no counterpart; the error has its path.
    pub fn request(self, body: &[u8], options: &EndpointOptions<'_>) -> Result<Vec<u8>, TranslationError> {
        let text = std::str::from_utf8(body).map_err(|_| TranslationError::syntax())?;
        match self {
            Self::ChatToMessages => chat_request::to_message(text, options),
            Self::MessagesToChat => message_request::to_chat(text, options),
        }
    }

    /// A whole answer of the endpoint. `created` in seconds, for OpenAI's field.
    ///
    /// # Errors
    /// When it does not follow the endpoint's protocol, or has no counterpart in the caller's.
    pub fn answer(self, body: &[u8], created: u64) -> Result<Vec<u8>, MalformedAnswer> {
        match self {
            Self::ChatToMessages => answer_to_chat::translate(body, created),
            Self::MessagesToChat => answer_to_message::translate(body),
        }
    }

    /// An endpoint's error, in the caller's dialect.
    #[must_use]
    pub fn error(self, status: u16, body: &[u8], request_id: &str) -> Vec<u8> {
        errors::translate(self, status, body, request_id)
    }
}
