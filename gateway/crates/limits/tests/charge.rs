//! Compares prices with a second, naive computation.

use proptest::prelude::*;
use tenon_contract as wire;
use tenon_limits::{Price, Tokens, UpperBound};

fn price_strategy() -> impl Strategy<Value = wire::Price> {
    let amount = || prop_oneof![Just(0_u64), 1..100_u64, 0..20_000_000_000_u64, Just(u64::MAX)];
    (amount(), amount(), amount(), amount(), amount(), amount(), 0..1_000_000_000_u64, 0..1_000_000_u64).prop_map(|p| wire::Price {
        input_nano_per_million: p.0,
        output_nano_per_million: p.1,
        cache_read_nano_per_million: p.2,
        cache_write_nano_per_million: p.3,
        reasoning_nano_per_million: p.4,
        audio_nano_per_million: p.5,
        image_nano: p.6,
        request_nano: p.7,
        ..wire::Price::default()
    })
}

fn tokens_strategy() -> impl Strategy<Value = Tokens> {
    let count = || prop_oneof![Just(0_u64), 0..5000_u64, 0..3_000_000_u64];
    (count(), count(), count(), count(), count(), count(), 0..8_u64).prop_map(|t| Tokens {
        input: t.0,
        output: t.1,
        cache_read: t.2,
        cache_write: t.3,
        reasoning: t.4,
        audio: t.5,
        images: t.6,
    })
}

/// Token by token: each belongs to exactly one type.
fn naive(price: &wire::Price, t: &Tokens) -> i64 {
    let [input, output, read, write, reasoning, audio] = [t.input, t.output, t.cache_read, t.cache_write, t.reasoning, t.audio].map(i128::from);
    let read = read.min(input);
    let write = write.min(input - read);
    let plain_input = input - read - write;
    let reasoning = reasoning.min(output);
    let plain_output = output - reasoning;
    let audio = audio.min(plain_input + plain_output);
    let audio_in = audio.min(plain_input);
    let audio_out = audio - audio_in;
    let sum = (plain_input - audio_in) * i128::from(price.input_nano_per_million)
        + (plain_output - audio_out) * i128::from(price.output_nano_per_million)
        + read * i128::from(price.cache_read_nano_per_million)
        + write * i128::from(price.cache_write_nano_per_million)
        + reasoning * i128::from(price.reasoning_nano_per_million)
        + audio * i128::from(price.audio_nano_per_million);
    let whole = sum / 1_000_000 + i128::from(sum % 1_000_000 != 0);
    let all = whole + i128::from(price.request_nano) + i128::from(t.images) * i128::from(price.image_nano);
    i64::try_from(all).unwrap_or(i64::MAX)
}

proptest! {
    #[test]
    fn a_charge_is_the_naive_sum(price in price_strategy(), tokens in tokens_strategy()) {
        prop_assert_eq!(Price::new(&price).charge(&tokens), naive(&price, &tokens));
    }

    #[test]
    fn no_use_within_the_bound_costs_more_than_the_bound(price in price_strategy(), tokens in tokens_strategy(), spare in 0..100_u64) {
        let most = UpperBound { input: tokens.input + spare, output: tokens.output + spare, images: tokens.images, media: tokens.audio > 0 };
        let price = Price::new(&price);
        prop_assert!(price.charge(&tokens) <= price.upper_bound(&most));
    }
}

#[test]
fn token_types_are_disjoint_and_the_sum_is_rounded_up_once() {
    let price = Price::new(&wire::Price {
        input_nano_per_million: 1_000_000,
        output_nano_per_million: 3_000_000,
        cache_read_nano_per_million: 100_000,
        reasoning_nano_per_million: 5_000_000,
        request_nano: 7,
        ..wire::Price::default()
    });
    let tokens = Tokens { input: 11, output: 7, cache_read: 4, reasoning: 2, ..Tokens::default() };
    // 7 × 1 + 4 × 0.1 + 5 × 3 + 2 × 5 = 32.4 → 33, + 7
    assert_eq!(price.charge(&tokens), 40);
}
