//! JSON Web Tokens (RFC 7519) and the keys that sign them (RFC 7517), as far as a caller's proof of identity needs them.
//!
//! Owns: the strict forms (base64url without padding, JSON without repeated names), an issuer's compiled keys, the order of the checks.
//! Promises: one algorithm an issuer, never the token's choice; nothing of a token's header is believed but `kid`, and that only within the
//! issuer's own keys; pure functions, the time is given. The control plane has a second implementation (`tenon.core.identity.tokens`), and
//! `contracts/tokens/corpus.json` holds hostile tokens on which both must say the same.
//! Needs: `ring` for signatures.

mod base64url;
mod issuer;
mod json;
mod key;
mod token;

pub use issuer::{Issuer, IssuerRejected};
pub use json::{JsonError, Value};
pub use key::Algorithm;
pub use token::{Claims, Refused, TOKEN_BYTES_MAX, Unverified};
