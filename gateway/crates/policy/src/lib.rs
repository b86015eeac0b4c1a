//! Decisions: who is calling, and what they may do.
//!
//! Owns: the text form of keys, the rules of authentication and admission, the codes of refusals, the cache of verified
//! tokens, and the bound on invalid tokens of one source.
//!
//! Promises: decisions depend only on a snapshot, the token cache and the time that is passed in; there is no I/O and
//! no clock. [`Admitted`] is the proof that a call was admitted, and only [`admit`] creates one: whatever calls an
//! upstream must hold it.
//!
//! Needs: `snapshot`, `limits` (for what an admission reserves), `balance` (to pick a route), `jose` (for callers'
//! tokens), `contract` (the operations).

mod key_text;
mod refusal;
mod token_failures;

mod key_authentication;
mod scope;

mod token_authentication;

mod chosen_route;

mod admission;

pub use admission::{Admitted, Limiting, NotAdmitted, admit};
pub use chosen_route::{ChosenRoute, RouteChoice, WaitingCall};
pub use key_authentication::{Authentication, Moment, authenticate, recheck};
pub use key_text::{KeyText, hash};
pub use refusal::Refusal;
pub use scope::check_scope;
pub use tenon_jose::TokenError;
pub use token_authentication::{VerifiedTokens, authenticate_token};
pub use token_failures::{Source, TokenFailures};
