//! The sealing key, which opens upstream credentials and signs the copy on disk: 32 bytes from a file, raw or as 64
//! hexadecimal digits.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the sealing key file {0} cannot be read: {1}")]
    Unreadable(String, std::io::Error),
    #[error("the sealing key file {0} must contain 32 bytes, raw or as 64 hexadecimal digits")]
    Malformed(String),
    #[error("the credential cannot be opened with this sealing key")]
    DoesNotOpen,
}

pub struct SealingKey {
    credentials: LessSafeKey,
    signing: hmac::Key,
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

impl SealingKey {
    /// # Errors
    /// When the file cannot be read or does not hold a key.
    pub fn read(path: &Path) -> Result<Self, SealError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| SealError::Unreadable(shown.clone(), e))?;
        let key = if bytes.len() == 32 { <[u8; 32]>::try_from(&bytes[..]).ok() } else { from_hex(bytes.trim_ascii()) };
        key.and_then(|key| Self::new(&key)).ok_or(SealError::Malformed(shown))
    }

    /// `None` never happens for 32 bytes, but the library's type allows it.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        let credentials = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        // Signing uses a key of its own, so that it cannot weaken sealing.
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tenon-last-known-good-v1").extract(key);
        let signing = hmac::Key::from(derived.expand(&[b"hmac"], hmac::HMAC_SHA256).ok()?);
        Some(Self { credentials, signing })
    }

    /// Opens `nonce || ciphertext || tag`, bound to the endpoint it was sealed for.
    ///
    /// # Errors
    /// When it was sealed with another key or for another endpoint, or was changed.
    pub fn open(&self, sealed: &[u8], endpoint_id: &str) -> Result<Vec<u8>, SealError> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::DoesNotOpen)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::DoesNotOpen)?;
        let mut text = text.to_vec();
        let plain = self.credentials.open_in_place(nonce, Aad::from(endpoint_id.as_bytes()), &mut text);
        Ok(plain.map_err(|_| SealError::DoesNotOpen)?.to_vec())
    }

    pub(crate) fn sign(&self, text: &[u8]) -> hmac::Tag {
        hmac::sign(&self.signing, text)
    }

    pub(crate) fn verify(&self, text: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.signing, text, tag).is_ok()
    }
}

fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut key = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(key)
}
