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
pub enum Refused {
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

impl Refused {
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
    pub fn parse(token: &'a [u8]) -> Result<Self, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLarge);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(Refused::Malformed);
        };
        let message = &token[..header.len() + 1 + payload.len()];
        let bytes = |part: &[u8]| base64url::decode(part).filter(|bytes| !bytes.is_empty()).ok_or(Refused::Malformed);
        let object = |part: &[u8]| match Value::parse(&bytes(part)?) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(Refused::Malformed),
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
    pub fn verify(&self, issuer: &Issuer, now_unix_ms: i64) -> Result<Claims, Refused> {
        self.check_header(issuer)?;
        let kid = match self.header.get("kid") {
            None => None,
            Some(kid) => Some(kid.text().ok_or(Refused::Malformed)?),
        };
        let key = issuer.key(kid).ok_or(Refused::Key)?;
        if !key.verifies(self.message, &self.signature) {
            return Err(Refused::Signature);
        }
        self.check_claims(issuer, now_unix_ms)
    }

    fn check_header(&self, issuer: &Issuer) -> Result<(), Refused> {
        if self.header.get("crit").is_some() {
            return Err(Refused::Critical);
        }
        if FORBIDDEN.iter().any(|name| self.header.get(name).is_some()) {
            return Err(Refused::Embedded);
        }
        let known = |typ: &Value| typ.text().is_some_and(|typ| TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known)));
        if !self.header.get("typ").is_none_or(known) {
            return Err(Refused::Type);
        }
        match self.header.get("alg").and_then(Value::text) {
            Some(name) if name == issuer.algorithm_name => Ok(()),
            _ => Err(Refused::Algorithm),
        }
    }

    fn check_claims(&self, issuer: &Issuer, now: i64) -> Result<Claims, Refused> {
        let expires = self.instant("exp")?.ok_or(Refused::Claims)?;
        let (not_before, issued) = (self.instant("nbf")?, self.instant("iat")?);
        if self.claimed_issuer() != Some(&issuer.name) {
            return Err(Refused::Issuer);
        }
        if !self.is_for(issuer)? {
            return Err(Refused::Audience);
        }
        if now >= expires + issuer.leeway_ms {
            return Err(Refused::Expired);
        }
        if [not_before, issued].into_iter().flatten().any(|instant| instant > now + issuer.leeway_ms) {
            return Err(Refused::NotYet);
        }
        if issuer.lifetime_max_ms > 0 && issued.is_none_or(|issued| expires - issued > issuer.lifetime_max_ms) {
            return Err(Refused::Lifetime);
        }
        Ok(Claims { subject: self.subject()?, expires_unix_ms: expires + issuer.leeway_ms })
    }

    /// A NumericDate (RFC 7519 §2) in milliseconds.
    fn instant(&self, name: &str) -> Result<Option<i64>, Refused> {
        match self.payload.get(name) {
            None => Ok(None),
            #[allow(clippy::cast_possible_truncation)] // within the bounds just checked
            Some(Value::Number(seconds)) if (0.0..=SECONDS_MAX).contains(seconds) => Ok(Some((seconds * 1000.0).floor() as i64)),
            Some(_) => Err(Refused::Claims),
        }
    }

    fn is_for(&self, issuer: &Issuer) -> Result<bool, Refused> {
        let named = |audience: &str| issuer.audiences.iter().any(|expected| expected == audience);
        match self.payload.get("aud") {
            None => Ok(false),
            Some(Value::Text(audience)) => Ok(named(audience)),
            Some(Value::List(list)) => {
                let texts: Option<Vec<&str>> = list.iter().map(Value::text).collect();
                Ok(texts.ok_or(Refused::Claims)?.into_iter().any(named))
            }
            Some(_) => Err(Refused::Claims),
        }
    }

    /// `sub`; where it is absent, the client that requested the token (client credentials).
    fn subject(&self) -> Result<String, Refused> {
        let claim = ["sub", "client_id", "azp"].iter().find_map(|name| self.payload.get(name)).ok_or(Refused::Subject)?;
        let subject = claim.text().ok_or(Refused::Claims)?;
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX { Err(Refused::Subject) } else { Ok(subject.to_owned()) }
    }
}
