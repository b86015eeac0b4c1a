//! The OpenAI dialect: chat completions, completions, embeddings, models.

mod error;
mod json;
mod listing;
mod scan;
mod splice;
mod sse;
mod usage;

pub use error::{ApiError, error_body, error_frame};
pub use listing::model_list;
pub use scan::{Head, IncludeUsage, ScanError, scan};
pub use splice::{Pieces, splice};
pub use sse::{Observer, Seen};
pub use usage::{Usage, find_usage};
