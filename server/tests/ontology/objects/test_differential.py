"""Random queries over hostile data: the compiler's answers are exactly those of a naive evaluation in Python."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import grouped, holds, ordered
from shop_tenant import Shop, render, rendered

TEXTS = [
    "", "a", "A", "ab", "abc", "Zoë", "zoe", "'", "''; drop table x --", '"', '\\', "\\'", "$1", "%", "_", "{a,b}", "NULL", "null", "\n", "é", "é",
    "日本", "🦊", "\ufffd", "a" * 400, "{", "}", ",", "select 1", "\x01", "\x7f", "a b", " a", "--", "/*", ":name", "%s", "%(x)s",
]  # fmt: skip
INSTANTS = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=7 * at, microseconds=at) for at in range(6)] + [
    datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC), datetime(1900, 2, 28, tzinfo=UTC),
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 2**53 + 1, -(2**63), 2**63 - 1, 7]
AMOUNTS = [Decimal(each) for each in ("0", "0.01", "-0.01", "12.50", "12.5", "92233720368547758.07", "-92233720368547758.08")]
FLOATS = [0.0, 0.1, -1e308, 5e-324, 1e22, 123456.789, -0.5]
UUIDS = [str(UUID(int=each)) for each in (0, 1, 2**128 - 1)]


def maybe(choose: random.Random, values: list[Any]) -> Any:
    return None if choose.random() < 0.25 else choose.choice(values)


async def store(shop: Shop, choose: random.Random) -> None:
    """Hostile objects: absent values, quotes, extremes."""
    for at, text in enumerate(TEXTS):
        await shop.insert(
            "customer", code=f"c{at}" if at % 2 else text[:40], name=maybe(choose, TEXTS),
            email=maybe(choose, TEXTS), region=maybe(choose, ["north", "'"]),
            active=maybe(choose, [True, False]), since=maybe(choose, [date(1, 1, 1), date(2024, 2, 29), date(9999, 12, 31)]),
            tier=maybe(choose, ["gold", "silver", "top-1"]),
        )  # fmt: skip
    codes = [row["code"] for row in shop.stored["customer"]]
    for at in range(70):
        await shop.insert(
            "purchase", customer_code=choose.choice([*codes, "gone"]), number=at if at > len(NUMBERS) else NUMBERS[at - 1],
            priority=choose.choice([1, 2, 3]),
            placed=maybe(choose, INSTANTS), amount=maybe(choose, AMOUNTS), rate=maybe(choose, [Decimal("0.0001"), Decimal("-3.5000")]),
            weight=maybe(choose, FLOATS), tracking=maybe(choose, UUIDS),
        )  # fmt: skip


def comparisons(name: str, values: list[Any], operators: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    value = st.sampled_from(values)
    plain = st.tuples(st.sampled_from([op for op in operators if op != "in"]), value).map(lambda pair: {pair[0]: pair[1]})
    several = st.lists(value, max_size=4).map(lambda values: {"in": values})
    absent = st.booleans().map(lambda value: {"is_null": value})
    return st.one_of(plain, several, absent).map(lambda part: {name: part})


def iso(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


ORDER = ["eq", "ne", "lt", "lte", "gt", "gte"]
PURCHASE = st.one_of(
    comparisons("customer_code", TEXTS, [*ORDER]),
    comparisons("number", NUMBERS, ORDER),
    comparisons("priority", [1, 2, 3], ORDER),
    comparisons("placed", [iso(each) for each in INSTANTS], ORDER),
    comparisons("amount", [format(each, "f") for each in AMOUNTS], ORDER),
    comparisons("weight", FLOATS, ORDER),
    comparisons("tracking", UUIDS, ["eq", "ne"]),
    st.sampled_from([text for text in TEXTS if text]).map(lambda text: {"customer_code": {"prefix": text}}),
)
CUSTOMER = st.one_of(
    comparisons("name", TEXTS, ORDER),
    comparisons("active", [True, False], ["eq", "ne"]),
    comparisons("since", ["0001-01-01", "2024-02-29"], ORDER),
    comparisons("tier", ["gold", "silver", "top-1"], ORDER),
    st.sampled_from([text for text in TEXTS if text]).map(lambda text: {"name": {"prefix": text}}),
)


def trees(leaf: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def grow(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        several = st.lists(inner, max_size=3)
        return st.one_of(
            several.map(lambda parts: {"and": parts}), several.map(lambda parts: {"or": parts}), inner.map(lambda part: {"not": part})
        )

    return st.recursive(leaf, grow, max_leaves=6)


def sorts(names: list[str]) -> st.SearchStrategy[list[str]]:
    keys = st.lists(st.sampled_from(names), max_size=3, unique=True)
    return st.tuples(keys, st.lists(st.booleans(), min_size=3, max_size=3)).map(
        lambda pair: [("-" if down else "") + name for name, down in zip(pair[0], pair[1], strict=False)]
    )


QUERIES = st.one_of(
    st.tuples(
        st.just("purchase"), trees(PURCHASE), sorts(["number", "placed", "amount", "weight", "priority", "customer_code", "tracking"])
    ),
    st.tuples(st.just("customer"), trees(CUSTOMER), sorts(["name", "active", "since", "tier", "code"])),
)


async def test_lists_pages_and_counts_agree_with_python(shop: Shop) -> None:
    """Filters, orders and keyset pages: following `next` gives every matching object once, in order."""
    await store(shop, random.Random(11))
    examples: list[tuple[str, dict[str, Any], list[str], int]] = []

    @settings(max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(QUERIES, st.integers(1, 30))
    def collect(query: tuple[str, dict[str, Any], list[str]], first: int) -> None:
        examples.append((*query, first))

    collect()
    matched = 0
    for type_name, filter_, sort, first in examples:
        object_type = shop.ontology.object_types[type_name]
        expected = [
            rendered(object_type, row) for row in ordered([row for row in shop.stored[type_name] if holds(object_type, row, filter_)], sort)
        ]
        items, after = [], None
        while True:
            page = json.loads(await shop.objects.list(shop.ctx, type_name, filter=filter_, sort=sort, first=first, after=after))
            items += page["items"]
            after = page["next"]
            assert len(page["items"]) <= first
            assert after is None or len(page["items"]) == first
            if after is None:
                break
        assert items == expected, (type_name, filter_, sort, first)
        count = json.loads(await shop.objects.aggregate(shop.ctx, type_name, filter=filter_))
        assert count == {"groups": [{"key": {}, "count": len(expected)}], "more": False}
        matched += len(expected)
    assert len(examples) > 200
    assert matched > 1_000


async def test_groups_and_figures_agree_with_python(shop: Shop) -> None:
    await store(shop, random.Random(12))
    object_type = shop.ontology.object_types["purchase"]
    for name in ("customer_code", "placed", "amount", "priority", "tracking"):
        answer = json.loads(
            await shop.objects.aggregate(
                shop.ctx,
                "purchase",
                group_by=[name],
                first=1_000,
                measures={"sum": ["amount", "number"], "min": ["placed"], "max": ["amount", "weight"]},
            )
        )
        groups = {group["key"][name]: group for group in answer["groups"]}
        for key, rows in grouped(object_type, shop.stored["purchase"], name).items():
            amounts = [row["amount"] for row in rows if row["amount"] is not None]
            weights = [row["weight"] for row in rows if row["weight"] is not None]
            placed = [row["placed"] for row in rows if row["placed"] is not None]
            group = groups.pop(key)
            assert group["count"] == len(rows)
            assert group["sum"] == {
                "amount": render(object_type.properties["amount"], sum(amounts, Decimal(0))) if amounts else None,
                "number": sum(row["number"] for row in rows),
            }  # fmt: skip
            assert group["max"] == {
                "amount": render(object_type.properties["amount"], max(amounts)) if amounts else None, "weight": max(weights) if weights else None,
            }  # fmt: skip
            assert group["min"] == {"placed": render(object_type.properties["placed"], min(placed)) if placed else None}
        assert not groups


async def test_nested_links_agree_with_python(shop: Shop) -> None:
    """To-many pages inside objects, and back again, over every customer."""
    await store(shop, random.Random(13))
    text = """query ($filter: Purchase_Filter, $sort: [Purchase_Sort!], $first: Int) { customers(first: 100) { items {
      code purchases(filter: $filter, sort: $sort, first: $first) { items { number customer { code region_info { code } } } } } } }"""
    object_type = shop.ontology.object_types["purchase"]
    for filter_, sort, first in (
        (None, [], 3),
        ({"amount": {"is_null": False}}, ["-amount", "number"], 5),
        ({"or": [{"priority": {"eq": 1}}, {"placed": {"gt": "2024-01-01T00:00:00Z"}}]}, ["placed"], 2),
    ):
        names = [f"{name.removeprefix('-')}_{'DESC' if name.startswith('-') else 'ASC'}" for name in sort]
        answer = await shop.query(text, {"filter": filter_, "sort": names, "first": first})
        assert len(answer["customers"]["items"]) == len(shop.stored["customer"])
        for customer in answer["customers"]["items"]:
            own = [
                row
                for row in shop.stored["purchase"]
                if row["customer_code"] == customer["code"] and holds(object_type, row, filter_ or {})
            ]
            expected = [row["number"] for row in ordered(own, sort)[:first]]
            assert [item["number"] for item in customer["purchases"]["items"]] == expected
            assert all(item["customer"]["code"] == customer["code"] for item in customer["purchases"]["items"])
