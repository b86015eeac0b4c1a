"""What a record costs: exact integers, each token once, rounded up once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from tenon.inference.billing import Price, PriceDraft, Quantities, in_force, rate
from tenon.kit.ids import uuid7

NOW = datetime(2026, 11, 21, tzinfo=UTC)
tokens = st.integers(0, 2**40)
nano = st.integers(0, 10**15)


def price(*amounts: int) -> Price:
    return Price(uuid7(), PriceDraft("m", "EUR", NOW, *amounts))


def test_each_kind_is_counted_once_and_parts_come_out_of_their_whole() -> None:
    by_kind = price(1_000_000, 2_000_000, 10_000_000, 100_000_000, 3_000_000, 7_000_000, 5, 11)
    used = Quantities(input_tokens=100, output_tokens=50, cache_read_tokens=30, cache_write_tokens=20, reasoning_tokens=10, images=3)
    assert rate(used, by_kind).cost_nano == 50 * 1 + 40 * 2 + 30 * 10 + 20 * 100 + 10 * 3 + 3 * 5 + 11
    audio = Quantities(input_tokens=100, output_tokens=50, audio_tokens=120)
    assert rate(audio, by_kind).cost_nano == 120 * 7 + 30 * 2 + 11


def test_it_is_rounded_up_once_for_the_whole_record() -> None:
    assert rate(Quantities(input_tokens=1, output_tokens=1), price(1, 1)).cost_nano == 1
    assert rate(Quantities(input_tokens=1_000_001), price(1)).cost_nano == 2
    assert rate(Quantities(), price(1, 1)).cost_nano == 0


@given(st.tuples(tokens, tokens, tokens, tokens, tokens, tokens, st.integers(0, 2**31)), st.tuples(*[nano] * 8))
def test_the_cost_is_bounded_by_the_dearest_kind(used: tuple[int, ...], amounts: tuple[int, ...]) -> None:
    """Whatever an engine says: between nothing and everything at the dearest price; linear in the price of a call."""
    quantities, terms = Quantities(*used), price(*amounts)
    cost = rate(quantities, terms).cost_nano
    dearest = ceil(Fraction((used[0] + used[1]) * max(amounts[:6]), 1_000_000))
    fixed = used[6] * amounts[6] + amounts[7]
    assert fixed <= cost <= dearest + fixed
    assert rate(quantities, terms) == rate(quantities, terms)


@given(st.lists(st.integers(-100, 100), unique=True), st.integers(-200, 200))
def test_the_version_in_force_is_the_latest_that_has_begun(hours: list[int], at: int) -> None:
    versions = [Price(uuid7(), PriceDraft("m", "EUR", NOW + timedelta(hours=hour))) for hour in hours]
    price_then = in_force(versions, NOW + timedelta(hours=at))
    begun = [hour for hour in hours if hour <= at]
    assert (price_then.terms.effective_from if price_then else None) == (NOW + timedelta(hours=max(begun)) if begun else None)
