"""What bad reads get: a stable code, the place in the input, and never a changed statement."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop_tenant import Shop, fill

from tenon.kit.errors import TenonError
from tenon.kit.pagination import encode_cursor
from tenon.ontology.objects import limits
from tenon.ontology.objects.requests import queries
from tenon.ontology.objects.sql.compiler import compile_query

LISTS: list[tuple[dict[str, Any], str, str]] = [
    ({"filter": {"nothing": {"eq": 1}}}, "unknown_property", "filter.nothing"),
    ({"filter": {"name": {"like": "x"}}}, "unknown_operator", "filter.name.like"),
    ({"filter": {"active": {"lt": True}}}, "unknown_operator", "filter.active.lt"),
    ({"filter": {"since": {"prefix": "2"}}}, "unknown_operator", "filter.since.prefix"),
    ({"filter": {"name": {"eq": None}}}, "invalid_query", "filter.name.eq"),
    ({"filter": {"name": {"eq": 5}}}, "invalid_value", "filter.name.eq"),
    ({"filter": {"name": {"eq": ["a"]}}}, "invalid_value", "filter.name.eq"),
    ({"filter": {"name": {"eq": "a\0b"}}}, "invalid_value", "filter.name.eq"),
    ({"filter": {"name": {"eq": "\ud800"}}}, "invalid_value", "filter.name.eq"),
    ({"filter": {"name": {"prefix": ""}}}, "invalid_value", "filter.name.prefix"),
    ({"filter": {"name": {"in": ["a", None]}}}, "invalid_query", "filter.name.in"),
    ({"filter": {"name": {"in": ["x"] * (limits.IN_MAX + 1)}}}, "invalid_value", "filter.name.in"),
    ({"filter": {"since": {"gt": "2024-02-30"}}}, "invalid_value", "filter.since.gt"),
    ({"filter": {"since": {"gt": "2024-02-29T00:00:00Z"}}}, "invalid_value", "filter.since.gt"),
    ({"filter": {"tier": {"eq": "bronze"}}}, "invalid_value", "filter.tier.eq"),
    ({"filter": {"note": {"eq": "x"}}}, "not_filterable", "filter.note"),
    ({"filter": {"and": "x"}}, "invalid_query", "filter.and"),
    ({"filter": {"or": [1]}}, "invalid_query", "filter.or"),
    ({"filter": {"not": []}}, "invalid_query", "filter.not"),
    ({"filter": {"or": [{"name": {"eq": "x"}}] * (limits.CONDITIONS_MAX + 1)}}, "too_many_conditions", "filter.or[100].name.eq"),
    ({"sort": ["note"]}, "not_filterable", "sort"),
    ({"sort": ["name", "-name"]}, "invalid_query", "sort"),
    ({"sort": ["id", "name"]}, "invalid_query", "sort"),
    ({"sort": ["name; drop table x"]}, "unknown_property", "sort"),
    ({"first": 0}, "invalid_query", "first"),
    ({"first": "ten"}, "invalid_query", "first"),
    ({"first": limits.PAGE_MAX + 1}, "page_too_large", "first"),
    ({"after": "nonsense"}, "invalid_cursor", "after"),
    ({"after": encode_cursor("purchase|id", ["x"])}, "invalid_cursor", "after"),
    ({"after": encode_cursor("customer|id", [])}, "invalid_cursor", "after"),
    ({"after": encode_cursor("customer|id", ["x' or true --"])}, "invalid_value", "after"),
    ({"after": encode_cursor("customer|name,id", [{"a": 1}, "x"]), "sort": ["name"]}, "invalid_value", "after"),
    ({"fields": ["id; drop"]}, "unknown_property", "fields"),
]


@pytest.mark.parametrize(("arguments", "code", "path"), LISTS, ids=lambda value: str(value)[:40])
async def test_bad_lists_are_refused_with_their_place(shop: Shop, arguments: dict[str, Any], code: str, path: str) -> None:
    with pytest.raises(TenonError) as refused:
        await shop.objects.list(shop.ctx, "customer", **arguments)
    assert (refused.value.code, refused.value.path) == (code, path)


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("12.50", True), ("12.5", True), (12.5, True), (12, True),
        ("1e2", False), ("12.505", False), ("NaN", False), ("92233720368547758.08", False), (True, False),
    ],
)  # fmt: skip
async def test_decimals_are_exact_or_refused(shop: Shop, value: Any, good: bool) -> None:
    await fill(shop)
    read = shop.objects.list(shop.ctx, "purchase", filter={"amount": {"eq": value}})
    if not good:
        with pytest.raises(TenonError) as refused:
            await read
        assert refused.value.code == "invalid_value"
    else:
        assert len(json.loads(await read)["items"]) == (0 if value == 12 else 1)


async def test_a_deep_filter_is_refused_not_crashed(shop: Shop) -> None:
    filter_: dict[str, Any] = {"name": {"eq": "x"}}
    for _ in range(3_000):
        filter_ = {"not": filter_}
    with pytest.raises(TenonError) as refused:
        await shop.objects.list(shop.ctx, "customer", filter=filter_)
    assert refused.value.code == "filter_too_deep"


async def test_values_never_change_the_statement(shop: Shop) -> None:
    """Any text in any place of a value compiles to the same SQL, and stands in the parameters alone."""
    view = await shop.objects.view(shop.ctx)
    object_type = view.type("customer")

    def sql(name: str, code: str, several: list[str]) -> str:
        filter_ = {"name": {"eq": name, "ne": name}, "or": [{"code": {"gte": code}}, {"code": {"in": several}}], "email": {"prefix": code}}
        return compile_query(
            view.ontology.schema, queries.page(object_type, {"filter": filter_}, sort=["-name"], first=10, fields=None)
        ).sql

    expected = sql("a", "b", ["c"])
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60)

    @settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(text, text.filter(lambda value: value[-1] != "\U0010ffff"), st.lists(text, max_size=5))
    def check(name: str, code: str, several: list[str]) -> None:
        assert sql(name, code, several) == expected

    check()


async def test_an_answer_beyond_the_limit_never_leaves_the_database(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(shop)
    monkeypatch.setattr("tenon.ontology.objects.sql.compiler.ANSWER_BYTES_MAX", 100)
    with pytest.raises(TenonError) as refused:
        await shop.objects.list(shop.ctx, "purchase", sort=["priority"])
    assert refused.value.code == "result_too_large"


async def test_absent_objects_and_dangling_links_are_not_found(shop: Shop) -> None:
    await fill(shop)
    absent = "00000000-0000-0000-0000-000000000000"
    gone = next(row["id"] for row in shop.stored["purchase"] if row["customer_code"] == "gone")
    for object_type, object_id, link in (
        ("purchase", absent, "customer"),
        ("purchase", gone, "customer"),
        ("customer", absent, "purchases"),
    ):
        with pytest.raises(TenonError) as refused:
            await shop.objects.follow(shop.ctx, object_type, object_id, link)
        assert refused.value.code == "object_not_found"
    for bad in ("x", absent + "x", "'; select 1"):
        with pytest.raises(TenonError) as refused:
            await shop.objects.get(shop.ctx, "purchase", bad)
        assert refused.value.code == "invalid_value"
