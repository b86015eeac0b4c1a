//! Hashes that are the same in every gateway, because affinity must not depend on the gateway that a caller reached,
//! nor on a restart.

/// Bytes of the prompt that count. Engines cache prefixes in blocks; what follows belongs to the conversation.
pub const HEAD_BYTES: usize = 1_024;

const K: u64 = 0x9E37_79B9_7F4A_7C15;

/// The last step of SplitMix64: every bit of the input affects every bit of the output.
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Not for tables that callers fill, because they can cause collisions. Here a caller can only choose its own endpoint.
#[must_use]
pub fn hash_text(text: &[u8]) -> u64 {
    let (words, rest) = text.as_chunks::<8>();
    let hash = words.iter().fold(K ^ text.len() as u64, |hash, word| (hash ^ u64::from_le_bytes(*word)).wrapping_mul(K).rotate_left(29));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash ^ u64::from_le_bytes(last))
}

/// Hashes the head of a prompt: the system prompt if it is separate, then `messages`, `prompt` or `input` as they are
/// in the body.
#[must_use]
pub fn hash_prompt(system: &[u8], prompt: &[u8]) -> u64 {
    let system = &system[..system.len().min(HEAD_BYTES)];
    let prompt = hash_text(&prompt[..prompt.len().min(HEAD_BYTES - system.len())]);
    if system.is_empty() { prompt } else { mix(hash_text(system) ^ prompt.rotate_left(17)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_decides_and_every_byte_of_it_counts() {
        let long = vec![b'a'; 4_000];
        let mut tail = long.clone();
        tail[HEAD_BYTES] = b'b';
        assert_eq!(hash_prompt(b"", &long), hash_prompt(b"", &tail));
        for at in [0, 7, 8, 500, HEAD_BYTES - 1] {
            let mut other = long.clone();
            other[at] = b'b';
            assert_ne!(hash_prompt(b"", &long), hash_prompt(b"", &other), "{at}");
        }
        assert_eq!(hash_prompt(&long, b"x"), hash_prompt(&long, b"y"), "a long system prompt is the head");
        assert_ne!(hash_prompt(b"s", b"x"), hash_prompt(b"s", b"y"));
        assert_ne!(hash_text(b"a"), hash_text(b"a\0"));
        assert_eq!(hash_text(b"session-1"), 13_451_682_130_250_546_869, "the same in every release");
    }
}
