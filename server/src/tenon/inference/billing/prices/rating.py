"""What a record costs: a pure function of the record and one version of a price, rounded up once (contracts/gateway.proto, Price)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tenon.inference.billing.contracts import Price, Quantities, Rated

MILLION = 1_000_000
COST_NANO_MAX = 2**62  # beyond it a record is nonsense: four billion of the largest unit


def rate(record: Quantities, price: Price) -> Rated:
    """ceil(Σ tokens × price / 1e6) + images + request, each kind of token counted once.

    Kinds are made disjoint first. What was read from or written to a cache comes out of the input, and reasoning out of the output. Audio comes
    out of what is left of the input, and then of the output. A part never counts for more than its whole, however oddly an engine counts. The
    gateway computes the same (gateway/crates/limits, price.rs).
    """
    terms = price.terms
    read = min(record.cache_read_tokens, record.input_tokens)
    written = min(record.cache_write_tokens, record.input_tokens - read)
    plain_input = record.input_tokens - read - written
    reasoning = min(record.reasoning_tokens, record.output_tokens)
    plain_output = record.output_tokens - reasoning
    audio_input = min(record.audio_tokens, plain_input)
    audio_output = min(record.audio_tokens - audio_input, plain_output)
    per_million = (
        (plain_input - audio_input) * terms.input_nano_per_million
        + read * terms.cache_read_nano_per_million
        + written * terms.cache_write_nano_per_million
        + (plain_output - audio_output) * terms.output_nano_per_million
        + reasoning * terms.reasoning_nano_per_million
        + (audio_input + audio_output) * terms.audio_nano_per_million
    )
    cost = -(-per_million // MILLION) + record.images * terms.image_nano + terms.request_nano
    return Rated(price.id, terms.currency, cost)


def in_force(prices: Sequence[Price], at: datetime) -> Price | None:
    """The latest version whose time has come; None before the first."""
    begun = [price for price in prices if price.terms.effective_from <= at]
    return max(begun, key=lambda price: price.terms.effective_from, default=None)
