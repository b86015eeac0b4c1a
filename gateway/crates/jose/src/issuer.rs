//! A trusted issuer of tokens, compiled from the control plane's record.

use crate::json::Value;
use crate::key::{Algorithm, Key};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IssuerError {
    #[error("its name is empty")]
    Name,
    #[error("it has no audience")]
    Audience,
    #[error("its algorithm is not known")]
    Algorithm,
    #[error("its keys are not a JWK set")]
    Keys,
}

/// An identity provider: its name, its one algorithm, its keys, and the claims its tokens must have.
#[derive(Debug)]
pub struct Issuer {
    pub(crate) name: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) algorithm_name: String,
    pub(crate) leeway_ms: i64,
    pub(crate) lifetime_max_ms: i64,
    keys: Vec<Key>,
}

impl Issuer {
    /// Keys of the set that cannot be used (of another type, too weak) are skipped; an issuer may end up with none.
    ///
    /// # Errors
    /// When no token could ever be checked against it.
    pub fn compile(
        name: &str,
        audiences: &[String],
        algorithm_name: &str,
        jwks: &[u8],
        leeway_ms: u32,
        lifetime_max_ms: u32,
    ) -> Result<Self, IssuerError> {
        if name.is_empty() {
            return Err(IssuerError::Name);
        }
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(IssuerError::Audience);
        }
        let algorithm = Algorithm::parse(algorithm_name).ok_or(IssuerError::Algorithm)?;
        let set = Value::parse(jwks).map_err(|_| IssuerError::Keys)?;
        let keys = set.get("keys").and_then(Value::list).ok_or(IssuerError::Keys)?;
        let keys = keys.iter().filter_map(|jwk| Key::parse(jwk, algorithm, algorithm_name)).collect();
        Ok(Self {
            name: name.to_owned(),
            audiences: audiences.to_vec(),
            algorithm_name: algorithm_name.to_owned(),
            leeway_ms: leeway_ms.into(),
            lifetime_max_ms: lifetime_max_ms.into(),
            keys,
        })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The key for a token: the one with its `kid`, or the only key where the token has none. If two match, none is used.
    pub(crate) fn key(&self, kid: Option<&str>) -> Option<&Key> {
        let mut matching = self.keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid);
        let first = matching.next()?;
        matching.next().is_none().then_some(first)
    }
}
