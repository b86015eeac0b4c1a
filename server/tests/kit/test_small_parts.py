"""Identifiers, the canonical encoding, cursors, redaction, trace context."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenon.kit import canonical, ids, telemetry
from tenon.kit.errors import Invalid
from tenon.kit.pagination import decode_cursor, encode_cursor

SECRET = "tnn_dev_usr_0123456789_" + "s" * 49


def test_uuid7_grows_and_says_its_version() -> None:
    ids_created = [ids.uuid7() for _ in range(5_000)]
    assert ids_created == sorted(ids_created)
    assert len(set(ids_created)) == len(ids_created)
    assert {(one.version, one.variant) for one in ids_created} == {(7, "specified in RFC 4122")}


def test_uuid7_still_grows_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.uuid7()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_000_000_000)
    assert ids.uuid7() > first


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_a_digest_id_names_its_parts_and_nothing_else(one: list[str], other: list[str]) -> None:
    assert (ids.uuid_from_digest(*one) == ids.uuid_from_digest(*other)) == (one == other)
    assert ids.uuid_from_digest(*one).version == 8


def test_base62_is_padded_and_ordered() -> None:
    assert (ids.base62(0, 6), ids.base62(61, 2), ids.base62(62, 2)) == ("000000", "0z", "10")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_bytes_survive_a_round_trip(value: object) -> None:
    encoded = canonical.encode(value)
    assert canonical.encode(json.loads(encoded)) == encoded


def test_instants_are_utc_whatever_zone_they_come_in() -> None:
    instant = datetime(2013, 2, 8, 12, 0, 0, 5, tzinfo=UTC)
    assert canonical.encode(instant) == b'"2013-02-08T12:00:00.000005Z"'
    assert canonical.encode(instant.astimezone(timezone(timedelta(hours=-5)))) == canonical.encode(instant)


@pytest.mark.parametrize("value", [math.nan, math.inf, datetime(2013, 1, 1), object()])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical.encode(value)


@given(st.lists(st.integers() | st.text(), max_size=3))
def test_a_cursor_belongs_to_its_query(values: list[int | str]) -> None:
    cursor = encode_cursor("flights by day", values)
    assert decode_cursor("flights by day", cursor) == values
    for damaged in (cursor[:-2], cursor + "A", "", "é"):
        if damaged != cursor:
            with pytest.raises(Invalid):
                decode_cursor("flights by delay" if damaged.startswith(cursor) else "flights by day", damaged[:-1])


@pytest.mark.parametrize(
    "value",
    [SECRET, f"key {SECRET} leaked", "postgresql://user:hunter2@host/db", "Authorization: Bearer abc.def", {"password": "hunter2"},
     {"nested": [{"api_key_text": SECRET}]}],
)  # fmt: skip
def test_secrets_are_blanked_by_name_and_by_shape(value: object) -> None:
    text = json.dumps(telemetry.redact(value))
    assert SECRET not in text
    assert "hunter2" not in text
    assert "abc.def" not in text
    assert telemetry.REDACTED in text


def test_a_callers_trace_is_continued_and_a_damaged_one_is_not() -> None:
    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    within = telemetry.trace_from(header, 0.0)
    assert (within.traceparent, within.sampled) == (header, True)
    for damaged in (None, "", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", header + "-x", header.upper()):
        begun = telemetry.trace_from(damaged, 0.0)
        assert begun.trace_id != within.trace_id
        assert not begun.sampled
        assert UUID(begun.trace_id)
