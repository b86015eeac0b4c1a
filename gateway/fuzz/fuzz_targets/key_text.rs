//! Whatever is sent as a key: it is read or not, and what is read has the form that we issue, checksum included.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tenon_policy::{KeyText, hash};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// CRC-32 (IEEE) bit by bit, in base62: a second implementation.
fn checksum(text: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in text {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 });
    }
    let mut rest = !crc;
    let mut digits: Vec<u8> = (0..6).map(|_| { let digit = BASE62[(rest % 62) as usize]; rest /= 62; digit }).collect();
    digits.reverse();
    digits
}

fn check(text: &[u8]) {
    let Some(key) = KeyText::parse(text) else { return };
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b'_').collect();
    assert_eq!(parts.len(), 5);
    assert!(parts[0] == b"tnn" && [&b"dev"[..], b"test", b"live"].contains(&parts[1]) && [&b"usr"[..], b"svc", b"agt", b"ses"].contains(&parts[2]));
    assert!(parts[3] == key.id && parts[4].len() == 49 && parts[3..].concat().iter().all(u8::is_ascii_alphanumeric));
    assert_eq!(&text[text.len() - 6..], checksum(&text[..text.len() - 6]));
    assert_eq!(key.hash(), hash(text));
}

fuzz_target!(|text: &[u8]| {
    check(text);
    // Mended, so that what comes after the checksum is reached.
    let mended = [text, &checksum(text)].concat();
    check(&mended);
});
