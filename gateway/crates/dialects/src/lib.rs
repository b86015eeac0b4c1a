//! What requests and answers look like in each API dialect.
//!
//! Owns: the scan of request bodies, the splice of what must change in them, the observer of answers, the translation between OpenAI's chat
//! completions and Anthropic's messages, the shape of errors and of the list of models.
//! Promises: a body that is let through reads the same for every JSON parser as for us (duplicates, escaped keys, depth, trailing bytes are
//! refused); bytes pass untouched but for what we spliced in or take out; usage is the engine's own numbers; what cannot be translated is
//! refused by name, never dropped.
//! Needs: nothing of ours, no I/O.

mod error;
mod frames;
mod json;
mod listing;
mod media;
pub mod multipart;
mod observe;
pub mod openai;
pub mod realtime;
mod scan;
mod splice;
pub mod translate;
mod usage;
mod watch;

pub use error::{ApiError, error_body, error_frame};
pub use listing::{model_list, model_list_in};
pub use media::{Media, completions};
pub use observe::{Observer, Seen, Source};
pub use scan::{Head, IncludeUsage, ScanError, Span};
pub use splice::{AskUsage, Pieces, splice, splice_asking};
pub use usage::{Usage, find_usage, usage_of_answer};
pub use watch::Watch;

/// The language that a caller or an endpoint speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    Anthropic,
}

impl Dialect {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }
}

/// What kind of request a body is: which keys decide, and how its answer is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Chat,
    Completion,
    Embedding,
    Response,
    Message,
    CountTokens,
    Rerank,
}

impl Form {
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Message | Self::CountTokens => Dialect::Anthropic,
            Self::Chat | Self::Completion | Self::Embedding | Self::Response | Self::Rerank => Dialect::OpenAi,
        }
    }

    /// Whether an answer of this form can be a stream of events.
    #[must_use]
    pub const fn streams(self) -> bool {
        matches!(self, Self::Chat | Self::Completion | Self::Response | Self::Message)
    }

    /// Whether engines tell usage in a stream only when `stream_options` asks for it.
    #[must_use]
    pub const fn asks_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completion)
    }

    #[must_use]
    pub(crate) const fn has_tools(self) -> bool {
        matches!(self, Self::Chat | Self::Response | Self::Message | Self::CountTokens)
    }

    /// # Errors
    /// When the body is not one that every parser reads as we do, or asks for what is not served.
    pub fn scan(self, body: &[u8]) -> Result<Head<'_>, ScanError> {
        scan::scan(self, body)
    }
}
