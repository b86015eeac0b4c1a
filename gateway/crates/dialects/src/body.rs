//! Reads the body of a request, JSON or a form with files.

use crate::multipart::{FormError, scan_form};
use crate::proof::Proof;
use crate::request_format::RequestFormat;
use crate::scan::{Head, IncludeUsage, ScanError, scan};
use tenon_problem::ProblemCode;

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Json(#[from] ScanError),
    #[error(transparent)]
    Multipart(#[from] FormError),
}

impl BodyError {
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Json(error) => error.param(),
            Self::Multipart(error) => error.param(),
        }
    }

    #[must_use]
    pub fn code(&self) -> ProblemCode {
        match self {
            Self::Json(error) => error.code(),
            Self::Multipart(error) => error.code(),
        }
    }

    #[must_use]
    pub fn status(&self) -> u16 {
        if *self == Self::Multipart(FormError::ContentType) { 415 } else { 400 }
    }
}

impl RequestFormat {
    /// # Errors
    /// When parsers could read the body differently, or it requests what is not served.
    pub fn scan(self, body: &[u8]) -> Result<Head<'_>, ScanError> {
        scan(self, body)
    }

    /// Reads a body of this format, JSON or a multipart form.
    ///
    /// # Errors
    /// As [`Self::scan`], and for forms with files those of [`scan_form`].
    pub fn read<'a>(self, content_type: &[u8], body: &'a [u8]) -> Result<Head<'a>, BodyError> {
        if !self.is_multipart() {
            return Ok(self.scan(body)?);
        }
        let form = scan_form(content_type, body)?;
        Ok(Head {
            model: form.model.into(),
            model_at: form.model_at,
            stream: form.stream,
            include_usage: IncludeUsage::Requested,
            options_at: None,
            mentions_continuous_usage: false,
            max_tokens: None,
            max_tokens_at: None,
            choices: form.choices,
            system_at: None,
            prompt_at: None,
            opening: 0,
            proof: Proof::NONE,
        })
    }
}
