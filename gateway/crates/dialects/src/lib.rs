//! What requests and answers look like in each API dialect.
//!
//! Owns: the scan of request bodies, the splice of what must change in them, the observer of answers, the translation between OpenAI's chat
//! completions and Anthropic's messages, the shape of errors and of the list of models.
//! Promises: a body that is let through reads the same for every JSON parser as for us (duplicates, escaped keys, depth, trailing bytes are
//! refused); bytes pass untouched but for what we spliced in or take out; usage is the engine's own numbers; what cannot be translated is
//! refused by name, never dropped.
//! Needs: nothing of ours, no I/O.

mod bound;
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

pub use bound::Bound;
pub use error::{ApiError, error_body, error_frame};
pub use listing::{model_in, model_list, model_list_in};
pub use media::{Media, completions};
pub use observe::{Observer, Seen, Source};
pub use scan::{Head, IncludeUsage, ScanError, Span};
pub use splice::{AskUsage, Cap, Pieces, splice, splice_asking, splice_capped};
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
    Speech,
    Image,
    /// Speech to text: a form with a file.
    Transcription,
    /// Images from images: a form with files.
    ImageForm,
}

impl Form {
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Message | Self::CountTokens => Dialect::Anthropic,
            Self::Chat | Self::Completion | Self::Embedding | Self::Response | Self::Rerank => Dialect::OpenAi,
            Self::Speech | Self::Image | Self::Transcription | Self::ImageForm => Dialect::OpenAi,
        }
    }

    /// Whether an answer of this form can be a stream of events.
    #[must_use]
    pub const fn streams(self) -> bool {
        matches!(self, Self::Chat | Self::Completion | Self::Response | Self::Message) || self.is_media()
    }

    /// Whether engines tell usage in a stream only when `stream_options` asks for it.
    #[must_use]
    pub const fn asks_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completion)
    }

    /// Its whole answers repeat nothing of the caller's as JSON, so the last `usage` in them is the engine's.
    #[must_use]
    pub const fn tells_usage_last(self) -> bool {
        matches!(self, Self::Chat | Self::Completion | Self::Embedding)
    }

    #[must_use]
    pub(crate) const fn has_tools(self) -> bool {
        matches!(self, Self::Chat | Self::Response | Self::Message | Self::CountTokens)
    }

    /// `multipart/form-data` instead of JSON.
    #[must_use]
    pub const fn is_multipart(self) -> bool {
        matches!(self, Self::Transcription | Self::ImageForm)
    }

    /// Its answers pass watched ([`Watch`]), whatever their type; nothing is asked for that the caller did not ask for.
    #[must_use]
    pub const fn is_media(self) -> bool {
        matches!(self, Self::Speech | Self::Image | Self::Transcription | Self::ImageForm)
    }

    /// Its answers are images, which are counted.
    #[must_use]
    pub const fn makes_images(self) -> bool {
        matches!(self, Self::Image | Self::ImageForm)
    }

    /// # Errors
    /// When the body is not one that every parser reads as we do, or asks for what is not served.
    pub fn scan(self, body: &[u8]) -> Result<Head<'_>, ScanError> {
        scan::scan(self, body)
    }

    /// Reads a body of this form, JSON or not.
    ///
    /// # Errors
    /// As [`Self::scan`], and for forms with files those of [`multipart::scan_form`].
    pub fn read<'a>(self, content_type: &[u8], body: &'a [u8]) -> Result<Head<'a>, BodyError> {
        if !self.is_multipart() {
            return Ok(self.scan(body)?);
        }
        let form = multipart::scan_form(content_type, body)?;
        Ok(Head {
            model: form.model.into(),
            model_at: form.model_at,
            stream: form.stream,
            include_usage: IncludeUsage::Asked,
            options_at: None,
            mentions_continuous_usage: false,
            max_tokens: None,
            max_tokens_at: None,
            choices: form.choices,
            system_at: None,
            prompt_at: None,
            opening: 0,
            proof: bound::Proof::NONE,
        })
    }
}

/// Why a body is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Json(#[from] ScanError),
    #[error(transparent)]
    Form(#[from] multipart::FormError),
}

impl BodyError {
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Json(error) => error.param(),
            Self::Form(error) => error.param(),
        }
    }

    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(error) => error.code(),
            Self::Form(error) => error.code(),
        }
    }

    #[must_use]
    pub fn status(&self) -> u16 {
        if *self == Self::Form(multipart::FormError::ContentType) { 415 } else { 400 }
    }
}
