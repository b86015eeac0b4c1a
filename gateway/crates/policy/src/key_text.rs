//! The text form of keys, `tnn_<env>_<kind>_<keyid: 10>_<secret: 43><crc: 6>`, checked before anything is looked up.

use sha2::{Digest, Sha256};
use tenon_snapshot::KeyId;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ENVIRONMENTS: [&str; 3] = ["dev", "test", "live"];
const KINDS: [&str; 4] = ["usr", "svc", "agt", "ses"];
const HASH_PREFIX: &[u8] = b"tenon-api-key-v1:";
const SECRET: usize = 43;
const CRC: usize = 6;

/// A text with the form of a key and a correct checksum. Whether such a key exists is another question.
#[derive(Clone, Copy)]
pub struct KeyText<'a> {
    text: &'a [u8],
    pub id: KeyId,
}

impl<'a> KeyText<'a> {
    /// `None` for anything that was never issued: a mistyped or truncated key costs no look-up.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let rest = text.strip_prefix(b"tnn_")?;
        let (environment, rest) = split(rest)?;
        let (kind, rest) = split(rest)?;
        let (id, secret) = split(rest)?;
        let known = |list: &[&str], part: &[u8]| list.iter().any(|known| known.as_bytes() == part);
        let id = KeyId::try_from(id).ok()?;
        let is_well_formed = known(&ENVIRONMENTS, environment)
            && known(&KINDS, kind)
            && secret.len() == SECRET + CRC
            && id.iter().all(u8::is_ascii_alphanumeric)
            && secret.iter().all(u8::is_ascii_alphanumeric);
        if !is_well_formed {
            return None;
        }
        let (checked, crc) = text.split_at(text.len() - CRC);
        (crc == base62_crc(checked)).then_some(Self { text, id })
    }

    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(self.text)
    }
}

/// The hash of a key that the control plane stores.
#[must_use]
pub fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(HASH_PREFIX).chain_update(text).finalize().into()
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|c| *c == b'_')?;
    Some((&text[..at], &text[at + 1..]))
}

/// CRC-32 (IEEE) in base62, most significant digit first, padded with zeros.
fn base62_crc(text: &[u8]) -> [u8; CRC] {
    let mut rest = crc32fast::hash(text);
    let mut digits = [b'0'; CRC];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(head: &str) -> String {
        let crc = base62_crc(head.as_bytes());
        format!("{head}{}", std::str::from_utf8(&crc).unwrap())
    }

    #[test]
    fn the_checksum_is_zlib_in_base62() {
        // zlib.crc32(b"123456789") = 0xCBF43926 = 3421780262
        let value = base62_crc(b"123456789").iter().fold(0_u64, |sum, digit| sum * 62 + BASE62.iter().position(|d| d == digit).unwrap() as u64);
        assert_eq!(value, 3_421_780_262);
    }

    #[test]
    fn only_the_right_form_with_a_correct_checksum_is_parsed() {
        let secret = "s".repeat(SECRET);
        let good = key(&format!("tnn_live_svc_abcdefghij_{secret}"));
        assert_eq!(&KeyText::parse(good.as_bytes()).unwrap().id, b"abcdefghij");
        let mut mistyped = good.clone().into_bytes();
        mistyped[30] = b'X';
        assert!(KeyText::parse(&mistyped).is_none());
        for head in
            ["tnn_prod_svc_abcdefghij_", "tnn_live_xxx_abcdefghij_", "tnn_live_svc_abcdefghi_", "sk_live_svc_abcdefghij_", "tnn_live_svc_abcdefgh-j_"]
        {
            assert!(KeyText::parse(key(&format!("{head}{secret}")).as_bytes()).is_none(), "{head}");
        }
        assert!(KeyText::parse(&good.as_bytes()[..good.len() - 1]).is_none() && KeyText::parse(b"").is_none());
    }
}
