//! What a call costs. Pure arithmetic, the same as in the control plane (`contracts/gateway.proto`, `Price`).

use tenon_contract as wire;

/// One immutable version of a price.
#[derive(Clone, Debug)]
pub struct Price {
    pub id: Box<str>,
    pub currency: Box<str>,
    pub effective_from_unix_ms: i64,
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    reasoning: u64,
    audio: u64,
    image: u64,
    request: u64,
}

/// What was used, as in usage records: cached tokens are a part of `input`, reasoning of `output`, audio of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    pub reasoning: u64,
    pub audio: u64,
    pub images: u64,
}

/// The most that a call can use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpperBound {
    pub input: u64,
    pub output: u64,
    pub images: u64,
    /// Some of the tokens may be audio.
    pub media: bool,
}

impl Price {
    #[must_use]
    pub fn new(wire: &wire::Price) -> Self {
        Self {
            id: wire.price_id.as_str().into(),
            currency: wire.currency.as_str().into(),
            effective_from_unix_ms: wire.effective_from_unix_ms,
            input: wire.input_nano_per_million,
            output: wire.output_nano_per_million,
            cache_read: wire.cache_read_nano_per_million,
            cache_write: wire.cache_write_nano_per_million,
            reasoning: wire.reasoning_nano_per_million,
            audio: wire.audio_nano_per_million,
            image: wire.image_nano,
            request: wire.request_nano,
        }
    }

    /// The cost in nano-units. First the types of tokens are made disjoint. Cached tokens are subtracted from the input,
    /// reasoning from the output, and audio from the rest of the input and then of the output.
    #[must_use]
    pub fn charge(&self, tokens: &Tokens) -> i64 {
        let cache_read = tokens.cache_read.min(tokens.input);
        let cache_write = tokens.cache_write.min(tokens.input - cache_read);
        let input = tokens.input - cache_read - cache_write;
        let reasoning = tokens.reasoning.min(tokens.output);
        let output = tokens.output - reasoning;
        let audio_input = tokens.audio.min(input);
        let audio_output = (tokens.audio - audio_input).min(output);
        let counts_and_prices = [
            (input - audio_input, self.input),
            (output - audio_output, self.output),
            (cache_read, self.cache_read),
            (cache_write, self.cache_write),
            (reasoning, self.reasoning),
            (audio_input + audio_output, self.audio),
        ];
        self.sum(counts_and_prices, tokens.images)
    }

    /// No usage within `most` costs more than this.
    #[must_use]
    pub fn upper_bound(&self, most: &UpperBound) -> i64 {
        self.sum([(most.input, self.input_max(most.media)), (most.output, self.output_max(most.media))], most.images)
    }

    #[must_use]
    pub fn input_max(&self, media: bool) -> u64 {
        self.input.max(self.cache_read).max(self.cache_write).max(if media { self.audio } else { 0 })
    }

    #[must_use]
    pub fn output_max(&self, media: bool) -> u64 {
        self.output.max(self.reasoning).max(if media { self.audio } else { 0 })
    }

    fn sum<const N: usize>(&self, counts_and_prices: [(u64, u64); N], images: u64) -> i64 {
        // 6 × 2^128 does not fit, but no count of tokens comes near 2^61.
        let tokens = counts_and_prices.iter().fold(0_u128, |sum, (count, price)| sum.saturating_add(u128::from(*count) * u128::from(*price)));
        let rest = u128::from(self.request).saturating_add(u128::from(images) * u128::from(self.image));
        i64::try_from(tokens.div_ceil(1_000_000).saturating_add(rest)).unwrap_or(i64::MAX)
    }
}

/// The version in force: the latest that is effective already. `prices` are sorted by that time.
#[must_use]
pub fn in_force<'a>(prices: &'a [std::sync::Arc<Price>], currency: &str, unix_ms: i64) -> Option<&'a std::sync::Arc<Price>> {
    prices.iter().rev().find(|price| price.effective_from_unix_ms <= unix_ms && *price.currency == *currency)
}
