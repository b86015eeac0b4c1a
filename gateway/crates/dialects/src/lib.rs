//! What requests and answers look like in each API dialect.
//!
//! Owns: the scan of request bodies, the splice of what must change in them, the observer of answers, the shape of errors.
//! Promises: a body that is let through reads the same for every JSON parser as for us (duplicates, escaped keys, depth, trailing bytes are
//! refused); bytes pass untouched but for what we spliced in or take out; usage is the engine's own numbers.
//! Needs: nothing of ours, no I/O.

pub mod openai;

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
}

impl Form {
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Chat | Self::Completion | Self::Embedding => Dialect::OpenAi,
        }
    }

    /// Whether an answer of this form can be a stream of events.
    #[must_use]
    pub const fn streams(self) -> bool {
        !matches!(self, Self::Embedding)
    }

    /// # Errors
    /// When the body is not one that every parser reads as we do.
    pub fn scan(self, body: &[u8]) -> Result<openai::Head<'_>, openai::ScanError> {
        match self {
            Self::Chat | Self::Completion | Self::Embedding => openai::scan(body),
        }
    }
}

/// A refusal as the caller's SDK reads it.
#[must_use]
pub fn error_body(dialect: Dialect, error: &openai::ApiError<'_>, request_id: &str) -> bytes::Bytes {
    match dialect {
        Dialect::OpenAi | Dialect::Anthropic => openai::error_body(error, request_id),
    }
}

/// The last frame of a stream that cannot go on.
#[must_use]
pub fn error_frame(dialect: Dialect, error: &openai::ApiError<'_>, request_id: &str) -> bytes::Bytes {
    match dialect {
        Dialect::OpenAi | Dialect::Anthropic => openai::error_frame(error, request_id),
    }
}
