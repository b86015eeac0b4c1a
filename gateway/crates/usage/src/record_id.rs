//! The metering id, a UUIDv7 (RFC 9562). It is minted here and never by a caller.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use std::cell::RefCell;

thread_local! {
    // 256 bits of state, seeded by the system for each thread: ids are unique, but not secret.
    static RANDOM: RefCell<SmallRng> = RefCell::new(SmallRng::from_os_rng());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordId(pub [u8; 16]);

impl RecordId {
    #[must_use]
    pub fn mint(unix_ms: i64) -> Self {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        RANDOM.with_borrow_mut(|random| random.fill_bytes(&mut id[6..]));
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        Self(id)
    }

    /// Reads the text form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let formed = text.len() == 36 && digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let id = Self(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes());
        (formed && text.eq_ignore_ascii_case(&id.text())).then_some(id)
    }

    /// The text form, on the stack.
    #[must_use]
    pub fn text(&self) -> IdText {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        IdText(text)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct IdText([u8; 36]);

impl std::ops::Deref for IdText {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[must_use]
pub fn random() -> u64 {
    RANDOM.with_borrow_mut(RngCore::next_u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_time_and_version() {
        let id = RecordId::mint(0x0123_4567_89ab);
        assert!(id.text().starts_with("01234567-89ab-7"));
        assert!(matches!(id.text().as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_ne!(RecordId::mint(1), RecordId::mint(1));
        assert_eq!(RecordId::parse(&id.text()), Some(id));
        for bad in ["", "0123", &id.text().replace('-', ""), &id.text().replace('7', "g"), &format!("{}0", &*id.text())] {
            assert_eq!(RecordId::parse(bad), None, "{bad}");
        }
    }
}
