//! The formats of requests, and what is fixed for each of them.

use crate::dialect::Dialect;

/// The format of a request's body: which of its keys matter, and how its answer is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFormat {
    Chat,
    Completion,
    Embedding,
    Response,
    Message,
    CountTokens,
    Rerank,
    Speech,
    Image,
    /// Speech to text: a multipart form with a file.
    Transcription,
    /// Images from images: a multipart form with files.
    ImageEdit,
}

impl RequestFormat {
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Message | Self::CountTokens => Dialect::Anthropic,
            Self::Chat | Self::Completion | Self::Embedding | Self::Response | Self::Rerank => Dialect::OpenAi,
            Self::Speech | Self::Image | Self::Transcription | Self::ImageEdit => Dialect::OpenAi,
        }
    }

    /// Whether its answers can be event streams.
    #[must_use]
    pub const fn streams(self) -> bool {
        matches!(self, Self::Chat | Self::Completion | Self::Response | Self::Message) || self.is_media()
    }

    /// Whether engines report usage in a stream only when `stream_options` requests it.
    #[must_use]
    pub const fn needs_usage_option(self) -> bool {
        matches!(self, Self::Chat | Self::Completion)
    }

    /// Its answers repeat no JSON of the caller's, so the last `usage` in them is the engine's.
    #[must_use]
    pub const fn ends_with_usage(self) -> bool {
        matches!(self, Self::Chat | Self::Completion | Self::Embedding)
    }

    #[must_use]
    pub(crate) const fn has_tools(self) -> bool {
        matches!(self, Self::Chat | Self::Response | Self::Message | Self::CountTokens)
    }

    /// `multipart/form-data` instead of JSON.
    #[must_use]
    pub const fn is_multipart(self) -> bool {
        matches!(self, Self::Transcription | Self::ImageEdit)
    }

    /// Its answers are observed by [`crate::MediaObserver`], whatever their content type. We add no option to its requests.
    #[must_use]
    pub const fn is_media(self) -> bool {
        matches!(self, Self::Speech | Self::Image | Self::Transcription | Self::ImageEdit)
    }

    /// Its answers hold images, which are counted.
    #[must_use]
    pub const fn has_images(self) -> bool {
        matches!(self, Self::Image | Self::ImageEdit)
    }

    /// The name of its cap on output; `None` = it has none.
    #[must_use]
    pub const fn cap_name(self) -> Option<&'static str> {
        match self {
            Self::Chat | Self::Completion | Self::Message => Some("max_tokens"),
            Self::Response => Some("max_output_tokens"),
            _ => None,
        }
    }

    /// Whether this key bounds the output. Another format's key does not: the engine ignores it.
    pub(crate) fn is_cap(self, name: &[u8]) -> bool {
        match self {
            Self::Chat => matches!(name, b"max_tokens" | b"max_completion_tokens"),
            _ => self.cap_name().is_some_and(|own| own.as_bytes() == name),
        }
    }
}
