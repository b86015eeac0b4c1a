//! Decisions: who is calling, and may they.
//!
//! Owns: the text form of keys, the rules of authentication and admission, the codes of refusal; tokens that were verified, and how often a
//! source's tokens may fail.
//! Promises: functions of a snapshot, what is remembered of tokens, and the time given; no I/O, no clocks of their own. [`Admitted`] is the proof of a yes, and only
//! [`admit`] makes one: whatever calls an upstream must hold it.
//! Needs: `limits`, whose grants an admission holds; `balance` to pick a route; `snapshot`, `jose` for callers' tokens.

mod admission;
mod authentication;
mod chosen;
mod forgeries;
mod key_text;
mod refusal;
mod scopes;
mod tokens;

pub use admission::{Admitted, Limiting, NotAdmitted, admit};
pub use authentication::{Moment, Verdict, authenticate, recheck};
pub use chosen::{Choice, Chosen, Waiting};
pub use forgeries::{Forgeries, Source};
pub use key_text::{KeyText, hash};
pub use refusal::Refusal;
pub use scopes::check_scope;
pub use tenon_jose::TokenError;
pub use tokens::{VerifiedTokens, authenticate_token};
