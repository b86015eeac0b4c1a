//! The older, narrower way in: what OpenAI's chat completions, completions and embeddings need.

pub use crate::error::ApiError;
pub use crate::listing::model_list;
pub use crate::observe::{Observer, Seen};
pub use crate::scan::{Head, IncludeUsage, ScanError};
pub use crate::splice::{Pieces, splice};
pub use crate::usage::{Usage, find_usage};

/// A body of chat completions, completions or embeddings.
///
/// # Errors
/// As [`crate::request_format::Form::scan`].
pub fn scan(body: &[u8]) -> Result<Head<'_>, ScanError> {
    crate::scan::scan(crate::request_format::Form::Chat, body)
}
