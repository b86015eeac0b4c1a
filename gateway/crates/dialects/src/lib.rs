//! Reads, changes and translates requests and answers of each API dialect.
//!
//! Owns: the scan of request bodies, the splice that changes them, and the observers of answers. Also the translation between OpenAI's chat
//! completions and Anthropic's messages, and the formats of errors and of the model list.
//! Promises: every JSON parser reads an accepted body as we do (duplicates, escaped keys, depth and trailing bytes are
//! refused). Bytes pass unchanged except for what we splice in or take out. Usage is the engine's own numbers. A field that cannot be
//! translated is refused by name, never dropped.
//! Needs: none of our crates, no I/O.

mod dialect;
mod json;
mod frames;
mod request_format;
mod usage;
mod proof;
mod scan;
mod splice;
pub mod multipart;
mod body;
mod prompt_media;
mod bound;
mod observe;
mod media_observer;
pub mod realtime;
mod error;
mod listing;
pub mod translate;

pub use body::BodyError;
pub use bound::{Bound, completions};
pub use dialect::Dialect;
pub use error::{ApiError, error_body, error_frame};
pub use json::Span;
pub use listing::{model_in, model_list, model_list_in};
pub use media_observer::MediaObserver;
pub use observe::{Observer, Source, StreamProgress};
pub use prompt_media::Media;
pub use request_format::RequestFormat;
pub use scan::{Head, IncludeUsage, ScanError};
pub use splice::{Cap, Changes, Pieces, UsageRequest, splice};
pub use usage::{Usage, find_usage, usage_of_answer};
