//! Verifies one token, in this order: size, format, header, key, signature, claims.

use crate::base64url;
use crate::issuer::Issuer;
use crate::json::Value;

/// Checked before anything is decoded.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
const SUBJECT_BYTES_MAX: usize = 255;
/// The end of the year 9999; a later time is a mistake.
const SECONDS_MAX: f64 = 253_402_300_799.0;
/// Members of the header that would choose the key or change how the rest is read.
const FORBIDDEN: [&str; 8] = ["jwk", "jku", "x5u", "x5c", "enc", "zip", "cty", "b64"];
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// Why a token is refused. The corpus of hostile tokens names these in both implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    TooLarge,
    /// It is not a compact JWS of strict base64url and strict JSON.
    Malformed,
    /// `crit`: it requires an extension that we do not support.
    Critical,
    /// It embeds a key, or uses encryption or another encoding.
    Embedded,
    Type,
    Algorithm,
    /// No key of the issuer matches it.
    Key,
    Signature,
    /// A claim has the wrong type.
    Claims,
    Issuer,
    Audience,
    Expired,
    NotYet,
    Lifetime,
    Subject,
}

impl TokenError {
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Critical => "critical",
            Self::Embedded => "embedded",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Lifetime => "lifetime",
            Self::Subject => "subject",
        }
    }
}

/// The claims of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub subject: String,
    /// `exp` plus the issuer's leeway: from then on it is refused.
    pub expires_unix_ms: i64,
}

/// A parsed token that is not verified yet.
#[derive(Debug)]
pub struct Unverified<'a> {
    message: &'a [u8],
    header: Value,
    payload: Value,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// # Errors
    /// `TooLarge`, `Malformed`.
    pub fn parse(token: &'a [u8]) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(TokenError::Malformed);
        };
        let message = &token[..header.len() + 1 + payload.len()];
        let bytes = |part: &[u8]| base64url::decode(part).filter(|bytes| !bytes.is_empty()).ok_or(TokenError::Malformed);
        let object = |part: &[u8]| match Value::parse(&bytes(part)?) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(TokenError::Malformed),
        };
        Ok(Self { message, header: object(header)?, payload: object(payload)?, signature: bytes(signature)? })
    }

    /// The claimed `iss`, to look up the issuer whose keys verify it.
    #[must_use]
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.payload.get("iss").and_then(Value::text)
    }

    /// Whether its unverified `aud` names one of the issuer's audiences.
    #[must_use]
    pub fn names_audience_of(&self, issuer: &Issuer) -> bool {
        self.is_for(issuer) == Ok(true)
    }

    /// # Errors
    /// The first check that fails.
    pub fn verify(&self, issuer: &Issuer, now_unix_ms: i64) -> Result<Claims, TokenError> {
        self.check_header(issuer)?;
        let kid = match self.header.get("kid") {
            None => None,
            Some(kid) => Some(kid.text().ok_or(TokenError::Malformed)?),
        };
        let key = issuer.key(kid).ok_or(TokenError::Key)?;
        if !key.verifies(self.message, &self.signature) {
            return Err(TokenError::Signature);
        }
        self.check_claims(issuer, now_unix_ms)
    }

    fn check_header(&self, issuer: &Issuer) -> Result<(), TokenError> {
        if self.header.get("crit").is_some() {
            return Err(TokenError::Critical);
        }
        if FORBIDDEN.iter().any(|name| self.header.get(name).is_some()) {
            return Err(TokenError::Embedded);
        }
        let known = |typ: &Value| typ.text().is_some_and(|typ| TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known)));
        if !self.header.get("typ").is_none_or(known) {
            return Err(TokenError::Type);
        }
        match self.header.get("alg").and_then(Value::text) {
            Some(name) if name == issuer.algorithm_name => Ok(()),
            _ => Err(TokenError::Algorithm),
        }
    }

    fn check_claims(&self, issuer: &Issuer, now: i64) -> Result<Claims, TokenError> {
        let expires = self.instant("exp")?.ok_or(TokenError::Claims)?;
        let (not_before, issued) = (self.instant("nbf")?, self.instant("iat")?);
        if self.claimed_issuer() != Some(&issuer.name) {
            return Err(TokenError::Issuer);
        }
        if !self.is_for(issuer)? {
            return Err(TokenError::Audience);
        }
        if now >= expires + issuer.leeway_ms {
            return Err(TokenError::Expired);
        }
        if [not_before, issued].into_iter().flatten().any(|instant| instant > now + issuer.leeway_ms) {
            return Err(TokenError::NotYet);
        }
        if issuer.lifetime_max_ms > 0 && issued.is_none_or(|issued| expires - issued > issuer.lifetime_max_ms) {
            return Err(TokenError::Lifetime);
        }
        Ok(Claims { subject: self.subject()?, expires_unix_ms: expires + issuer.leeway_ms })
    }

    /// A NumericDate (RFC 7519 §2) in milliseconds.
    fn instant(&self, name: &str) -> Result<Option<i64>, TokenError> {
        match self.payload.get(name) {
            None => Ok(None),
            #[allow(clippy::cast_possible_truncation)] // within the bounds just checked
            Some(Value::Number(seconds)) if (0.0..=SECONDS_MAX).contains(seconds) => Ok(Some((seconds * 1000.0).floor() as i64)),
            Some(_) => Err(TokenError::Claims),
        }
    }

    fn is_for(&self, issuer: &Issuer) -> Result<bool, TokenError> {
        let named = |audience: &str| issuer.audiences.iter().any(|expected| expected == audience);
        match self.payload.get("aud") {
            None => Ok(false),
            Some(Value::Text(audience)) => Ok(named(audience)),
            Some(Value::List(list)) => {
                let texts: Option<Vec<&str>> = list.iter().map(Value::text).collect();
                Ok(texts.ok_or(TokenError::Claims)?.into_iter().any(named))
            }
            Some(_) => Err(TokenError::Claims),
        }
    }

    /// `sub`; where it is absent, the client that requested the token (client credentials).
    fn subject(&self) -> Result<String, TokenError> {
        let claim = ["sub", "client_id", "azp"].iter().find_map(|name| self.payload.get(name)).ok_or(TokenError::Subject)?;
        let subject = claim.text().ok_or(TokenError::Claims)?;
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX { Err(TokenError::Subject) } else { Ok(subject.to_owned()) }
    }
}
