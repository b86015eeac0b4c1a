"""The conformance corpus of the expression language: what action types may rely on, whatever engine runs below."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tenon.kit.cel import (
    MAP_CALLS_MAX,
    SOURCE_BYTES_MAX,
    Environment,
    ExpressionFailed,
    ExpressionInvalid,
    Field,
    Kind,
    Record,
    Variable,
)

NOON = datetime(2013, 2, 8, 12, tzinfo=UTC)
FLIGHT = Record(
    "flight",
    {
        "carrier": Field(Kind.TEXT),
        "tail_number": Field(Kind.TEXT, optional=True),
        "delay": Field(Kind.INTEGER, optional=True),
        "distance": Field(Kind.FLOAT),
        "cancelled": Field(Kind.BOOLEAN),
        "scheduled_at": Field(Kind.TIMESTAMP),
        "left_at": Field(Kind.TIMESTAMP, optional=True),
    },
)
ENVIRONMENT = Environment(
    {"flight": FLIGHT},
    {
        "flight": Variable("flight"),
        "empty": Variable("flight"),
        "flights": Variable("flight", many=True),
        "minutes": Variable(Field(Kind.INTEGER)),
        "note": Variable(Field(Kind.TEXT)),
        "now": Variable(Field(Kind.TIMESTAMP)),
        "maybe": Variable(Field(Kind.INTEGER, optional=True)),
        "then": Variable(Field(Kind.TIMESTAMP, optional=True)),
    },
)
FULL = {"carrier": "UA", "tail_number": "", "delay": 0, "distance": 2.5, "cancelled": False, "scheduled_at": NOON, "left_at": NOON}
REQUIRED = {"carrier": "AA", "distance": 1.0, "cancelled": True, "scheduled_at": NOON}


def values(**more: Any) -> dict[str, Any]:
    full, empty = ENVIRONMENT.record("flight", FULL), ENVIRONMENT.record("flight", REQUIRED)
    return {
        "flight": full,
        "empty": empty,
        "flights": [full, empty],
        "minutes": 30,
        "note": "é😀",
        "now": NOON,
        "maybe": None,
        "then": NOON,
        **more,
    }


CORPUS: list[tuple[str, Any]] = [
    # optional fields: a present zero or empty text is present
    ("has(flight.delay)", True),
    ("has(flight.tail_number)", True),
    ("has(empty.delay)", False),
    ("has(empty.tail_number)", False),
    ("has(flight.left_at)", True),
    ("has(empty.left_at)", False),
    ("has(empty.delay) ? empty.delay : 7", 7),
    ("empty.delay == null", True),
    ("flight.delay == 0", True),
    ("empty.tail_number", None),
    ("maybe == null", True),
    ("then", NOON),
    ("then == now && then + duration('1s') > now", True),
    # numbers
    ("minutes / 7", 4),
    ("-7 / 2", -3),
    ("minutes % 7", 2),
    ("double(minutes) * flight.distance", 75.0),
    ("int(flight.distance)", 2),
    ("1 == 1 && 1.0 == 1.0", True),
    # text
    ("size(note)", 2),
    ("flight.carrier + ' ' + string(minutes)", "UA 30"),
    ("note.startsWith('é')", True),
    ("flight.carrier in ['UA', 'DL']", True),
    ("flight.carrier.matches('^[A-Z]{2}$')", True),
    ("'a' < 'b' && 'B' < 'a'", True),
    # time
    ("now + duration('90m')", datetime(2013, 2, 8, 13, 30, tzinfo=UTC)),
    ("now + duration(string(minutes) + 'm')", datetime(2013, 2, 8, 12, 30, tzinfo=UTC)),
    ("flight.scheduled_at < timestamp('2014-01-01T00:00:00Z')", True),
    ("flight.left_at == now", True),
    ("now.getHours('America/New_York')", 7),
    # lists
    ("flights.all(f, f.carrier != 'DL')", True),
    ("flights.exists(f, f.cancelled)", True),
    ("flights.filter(f, has(f.delay)).size()", 1),
    ("flights.map(f, f.carrier) == ['UA', 'AA']", True),
    ("size(flights)", 2),
    # errors are absorbed by the side that decides
    ("1 / 0 == 1 || true", True),
    ("false && 1 / 0 == 1", False),
    ("minutes > 10 ? 'late' : 'fine'", "late"),
    ("null", None),
]


@pytest.mark.parametrize(("source", "expected"), CORPUS, ids=[source for source, _ in CORPUS])
def test_value(source: str, expected: Any) -> None:
    value = ENVIRONMENT.compile(source).evaluate(values())
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("flight.nope", "undefined field 'nope'"),
        ("nope", "Undeclared reference to 'nope'"),
        ("minutes + note", "no matching overload"),
        ("minutes + 1.0", "no matching overload"),
        ("minutes ==", "yntax error"),
        ("", "empty"),
        ("1" + " + 1" * 40, "recursion"),
        ("'" + "a" * SOURCE_BYTES_MAX + "'", "longer"),
        ("[note]" + ".map(x, x + x)" * (MAP_CALLS_MAX + 1), ".map"),
        ("note.upperAscii()", "Undeclared reference"),
    ],
)
def test_refused_when_compiled(source: str, part: str) -> None:
    with pytest.raises(ExpressionInvalid) as refusal:
        ENVIRONMENT.compile(source)
    assert part.lower() in str(refusal.value).lower()


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("minutes / 0", "divides by zero"),
        ("9223372036854775807 + minutes", "too large"),
        ("empty.delay + 1", "absent"),
        ("empty.left_at + duration('1m')", "absent"),
        ("empty.left_at == null", "absent"),
        ("flights.all(f, flights.all(g, flights.all(h, true)))", "iterations"),
        ("timestamp(note)", "conversion"),
        ("duration('1d')", "conversion"),
        ("flight.distance / 0.0", "not finite"),
        ("[1, 2][5]", "end of a list"),
        ("flight", "not a plain value"),
    ],
)
def test_refused_when_evaluated(source: str, part: str) -> None:
    more: dict[str, Any] = {}
    if source.startswith("flights.all"):
        more["flights"] = [ENVIRONMENT.record("flight", FULL)] * 30
    with pytest.raises(ExpressionFailed) as refusal:
        ENVIRONMENT.compile(source).evaluate(values(**more))
    assert part in str(refusal.value)


def test_expected_type_is_checked_when_compiled() -> None:
    assert ENVIRONMENT.compile("minutes + 1", expects=Kind.INTEGER).evaluate(values()) == 31
    with pytest.raises(ExpressionInvalid, match="here a value of type text is needed"):
        ENVIRONMENT.compile("minutes + 1", expects=Kind.TEXT)
    with pytest.raises(ExpressionInvalid):
        ENVIRONMENT.compile("null", expects=Kind.TEXT)
    assert ENVIRONMENT.compile("null", expects=Kind.TEXT, optional=True).evaluate(values()) is None


def test_expected_type_of_a_dynamic_source_is_checked_each_time() -> None:
    expression = ENVIRONMENT.compile("maybe", expects=Kind.INTEGER)
    assert expression.evaluate(values(maybe=3)) == 3
    for wrong in (None, "three"):
        with pytest.raises(ExpressionFailed):
            expression.evaluate(values(maybe=wrong))


def test_optional_timestamp_never_reads_as_1970() -> None:
    with pytest.raises(ExpressionFailed):
        ENVIRONMENT.compile("empty.left_at < now").evaluate(values())


def test_only_variables_that_stand_in_the_source_are_needed() -> None:
    expression = ENVIRONMENT.compile("minutes + size('now flight note')")
    assert expression.variables == {"minutes"}
    assert expression.evaluate({"minutes": 1}) == 16


def test_reserved_words_are_no_names() -> None:
    with pytest.raises(ExpressionInvalid):
        Environment({}, {"in": Variable(Field(Kind.TEXT))})
