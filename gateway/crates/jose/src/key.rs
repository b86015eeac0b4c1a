//! An issuer's public keys, checked and made ready once, when they arrive.

use crate::base64url;
use crate::json::Value;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// RFC 7518 and RFC 9864. No MAC (anyone who can verify could also forge), no `none`, no curve that `ring` lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    /// Named `EdDSA` (RFC 8037); only with Ed25519.
    EdDsa,
    /// The same, by its newer name. A token must use the name that its issuer is configured with.
    Ed25519,
}

impl Algorithm {
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            "Ed25519" => Self::Ed25519,
            _ => return None,
        })
    }

    fn key_type(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Es256 => ("EC", Some("P-256")),
            Self::Es384 => ("EC", Some("P-384")),
            Self::EdDsa | Self::Ed25519 => ("OKP", Some("Ed25519")),
            _ => ("RSA", None),
        }
    }
}

/// One key that may sign for one algorithm.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub kid: Option<String>,
    algorithm: Algorithm,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point, or the 32 bytes of an Ed25519 key.
    Point(Vec<u8>),
}

impl Key {
    /// `None` for a key of another type or use, or one that is too weak: it is treated as absent from the set.
    pub fn parse(jwk: &Value, algorithm: Algorithm, name: &str) -> Option<Self> {
        let text = |member: &str| jwk.get(member).and_then(Value::text);
        let (key_type, curve) = algorithm.key_type();
        let allows = |member: &str, expected: &str| jwk.get(member).is_none_or(|value| value.text() == Some(expected));
        let verifies = jwk.get("key_ops").is_none_or(|ops| ops.list().is_some_and(|ops| ops.iter().any(|op| op.text() == Some("verify"))));
        if text("kty") != Some(key_type) || text("crv") != curve || !allows("use", "sig") || !allows("alg", name) || !verifies {
            return None;
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.text()?.to_owned()),
        };
        let bytes = |member: &str| text(member).and_then(|value| base64url::decode(value.as_bytes()));
        let material = match key_type {
            "RSA" => rsa(bytes("n")?, bytes("e")?)?,
            "EC" => point(curve, &bytes("x")?, &bytes("y")?)?,
            _ => Material::Point(bytes("x").filter(|x| x.len() == 32)?),
        };
        Some(Self { kid, algorithm, material })
    }

    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let by_point = |algorithm: &'static dyn ring::signature::VerificationAlgorithm, point: &Vec<u8>| {
            UnparsedPublicKey::new(algorithm, point).verify(message, signature)
        };
        let checked = match (&self.material, self.algorithm) {
            (Material::Rsa { n, e }, algorithm) => {
                let Some(parameters) = rsa_parameters(algorithm) else { return false };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            (Material::Point(point), Algorithm::Es256) => by_point(&ECDSA_P256_SHA256_FIXED, point),
            (Material::Point(point), Algorithm::Es384) => by_point(&ECDSA_P384_SHA384_FIXED, point),
            (Material::Point(point), Algorithm::EdDsa | Algorithm::Ed25519) => by_point(&ED25519, point),
            (Material::Point(_), _) => return false,
        };
        checked.is_ok()
    }
}

fn rsa_parameters(algorithm: Algorithm) -> Option<&'static ring::signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// 2048 to 8192 bits; an odd exponent of at least 65,537 (smaller ones have a history) and at most 33 bits. No leading zeros (RFC 7518 §6.3.1).
fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Material> {
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    let exponent = (e.len() <= 5).then(|| e.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))?;
    let sound = n.first() != Some(&0) && n.last()? & 1 == 1 && (2048..=8192).contains(&bits);
    let fits = e.first() != Some(&0) && exponent & 1 == 1 && (65_537..1 << 33).contains(&exponent);
    (sound && fits).then_some(Material::Rsa { n, e })
}

/// `ring` checks with each signature that the point is on the curve.
fn point(curve: Option<&str>, x: &[u8], y: &[u8]) -> Option<Material> {
    let size = if curve == Some("P-256") { 32 } else { 48 };
    (x.len() == size && y.len() == size).then(|| Material::Point([&[4], x, y].concat()))
}
