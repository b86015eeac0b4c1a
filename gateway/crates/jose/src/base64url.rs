//! base64url (RFC 4648 §5) as JWS writes it: no padding, no white space, and exactly one text for each value.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `None` for anything but the one canonical text. The engine refuses padding and non-zero unused bits by default: with them, two different
/// tokens would be the same one.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::decode;
    use proptest::prelude::*;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    fn encode(bytes: &[u8]) -> Vec<u8> {
        let bit = |at: usize| usize::from(bytes[at / 8] >> (7 - at % 8) & 1);
        let total = bytes.len() * 8;
        (0..total.div_ceil(6)).map(|i| ALPHABET[(0..6).fold(0, |sum, j| sum << 1 | if i * 6 + j < total { bit(i * 6 + j) } else { 0 })]).collect()
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn each_value_has_one_text(text in "[A-Za-z0-9_-]{0,40}") {
            if let Some(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text.into_bytes());
            }
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["A", "AA==", "AA=", "AB", "AAB", "A A", "AA\n", "A+8A", "A/8A", "AAAAA", "\u{e9}A"] {
            assert_eq!(decode(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(decode(b""), Some(vec![]));
    }
}
