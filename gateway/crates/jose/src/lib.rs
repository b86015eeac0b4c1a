//! Verifies callers' JSON Web Tokens (RFC 7519) with their issuer's keys (RFC 7517).
//!
//! Owns: the strict formats (base64url without padding, JSON without repeated names), an issuer's compiled keys, the order of the checks.
//! Promises: an issuer has one algorithm, and a token never chooses it. Of a token's header only `kid` is used, and only within the
//! issuer's own keys. Functions are pure: the caller passes the time. The control plane has a second implementation
//! (`tenon.core.identity.tokens`); `contracts/tokens/corpus.json` holds hostile tokens on which both must agree.
//! Needs: none of our crates; `ring` for signatures.

mod base64url;
mod json;
mod key;
mod issuer;
mod token;

pub use issuer::{Issuer, IssuerError};
pub use json::{JsonError, Value};
pub use key::Algorithm;
pub use token::{Claims, TOKEN_BYTES_MAX, TokenError, Unverified};
