"""GraphQL: one statement a request, the language's own features, and limits before any work."""

from __future__ import annotations

from typing import Any

import pytest
from shop_tenant import Shop, fill

from tenon.kit.errors import TenonError
from tenon.ontology.objects import limits
from tenon.ontology.objects.graphql_language.documents import InvalidDocument
from tenon.ontology.objects.graphql_language.operations import FieldRefused


async def test_variables_aliases_fragments_and_directives(shop: Shop) -> None:
    await fill(shop)
    text = """
    query Shop($code: String!, $codes: [String!], $with: Boolean = false, $without: Boolean!, $first: Int, $sort: [Purchase_Sort!]) {
      __typename
      ada: customer(key: {code: $code}) { ...Named tier @skip(if: $without) since @include(if: $with) ... on Customer { kind: __typename } }
      both: customers(filter: {code: {in: [$code, "c2"]}}, sort: [code_DESC]) { items { code ...Named } }
      listed: customers(filter: {code: {in: $codes}}) { items { code } }
      page: purchases(first: $first, sort: $sort) { __typename items { number customer { ...Named } } next }
    }
    fragment Named on Customer { name purchases(first: 1, sort: [number_DESC]) { items { number } } }
    """
    variables: dict[str, Any] = {
        "code": "c1",
        "codes": ["c2", "nobody"],
        "without": True,
        "first": 2,
        "sort": ["priority_DESC", "number_ASC"],
    }
    data = await shop.query(text, variables)
    assert data["__typename"] == "Query"
    assert data["ada"] == {"name": "Ada", "purchases": {"items": [{"number": 3}]}, "kind": "Customer"}
    assert [item["code"] for item in data["both"]["items"]] == ["c2", "c1"]
    assert data["both"]["items"][0]["name"] == "Zoë"
    assert data["listed"] == {"items": [{"code": "c2"}]}
    assert data["page"]["__typename"] == "Purchase_Page"
    assert [item["number"] for item in data["page"]["items"]] == [9007199254740993, 1]
    assert data["page"]["items"][0]["customer"] is None
    second = await shop.query(text, {**variables, "without": False, "with": True, "codes": [], "first": 3})
    assert second["ada"]["tier"] == "gold"
    assert second["ada"]["since"] == "2020-02-29"
    assert second["listed"] == {"items": []}
    assert len(second["page"]["items"]) == 3


async def test_cursors_continue_a_page_also_over_nulls(shop: Shop) -> None:
    await fill(shop)
    text = "query ($after: Cursor) { purchases(first: 1, sort: [amount_DESC], after: $after) { items { amount } next } }"
    amounts: list[str | None] = []
    after = None
    for _ in range(10):
        page = (await shop.query(text, {"after": after}))["purchases"]
        amounts += [item["amount"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert amounts == [None, None, "100.00", "12.50", "0.07"]


async def test_a_known_shape_is_neither_parsed_nor_compiled_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(shop)
    text = "query ($filter: Customer_Filter) { customers(filter: $filter) { items { code } } }"

    async def names(**filter_: Any) -> list[str]:
        return [item["code"] for item in (await shop.query(text, {"filter": filter_}))["customers"]["items"]]

    assert await names(name={"eq": "Ada"}, code={"in": ["c1"]}) == ["c1"]

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the plan was not reused")

    monkeypatch.setattr("tenon.ontology.objects.graphql_language.documents.parse", never)
    with monkeypatch.context() as patched:
        patched.setattr("tenon.ontology.objects.graphql_language.service.compile_roots", never)
        assert await names(name={"eq": "Zoë"}, code={"in": ["c1", "c2", "c3"]}) == ["c2"]
        with pytest.raises(TenonError) as refused:
            await names(name={"eq": "\0"}, code={"in": ["c1"]})
        assert (refused.value.code, refused.value.path) == ("invalid_value", "filter.name.eq")
    # Another shape is another statement: fewer keys, a null where a value was.
    assert await names(name={"eq": "Ada"}) == ["c1"]
    assert len(await names()) == 2
    for wrong in ({"name": {"eq": None}}, {"name": None}, {"nothing": {"eq": 1}}):
        with pytest.raises((TenonError, InvalidDocument, FieldRefused)):
            await names(**wrong)


async def test_groups(shop: Shop) -> None:
    await fill(shop)
    text = """{ purchases_aggregate(group_by: [placed_DAY], sort: ["-count"], first: 1, filter: {placed: {is_null: false}}) {
      more groups { key { placed } count total: sum { amount number } avg { priority amount } max { placed } kind: __typename } } }"""
    data = (await shop.query(text))["purchases_aggregate"]
    assert data == {
        "more": True,
        "groups": [{
            "key": {"placed": "2024-01-01T00:00:00.000000Z"}, "count": 2, "total": {"amount": "112.50", "number": 2},
            "avg": {"priority": 2, "amount": "56.25000000"}, "max": {"placed": "2024-01-01T23:59:00.000000Z"}, "kind": "Purchase_Group",
        }],
    }  # fmt: skip


async def refusal(shop: Shop, text: str, variables: dict[str, Any] | None = None) -> str:
    try:
        await shop.query(text, variables)
    except FieldRefused as refused:
        return refused.error.code
    except InvalidDocument:
        return "invalid"
    except TenonError as refused:
        return refused.code
    return "answered"


DEEP = "customer { purchases { items { " * 4 + "number" + " } } }" * 4


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "invalid"),
        ("{ nothing }", "invalid"),
        ("{ customers { items } }", "invalid"),
        ("{ customers { items { } } }", "invalid"),
        ("mutation { customers { next } }", "only_queries"),
        ("query A { customers { next } } query B { customers { next } }", "ambiguous_operation"),
        ("{ __schema { queryType { name } } customers { next } }", "mixed_introspection"),
        ("{ customer { code } }", "invalid_query"),
        ('{ customer(id: "x", key: {code: "c"}) { code } }', "invalid_query"),
        ('{ customer(id: "x") { code } }', "invalid_value"),
        ("{ customers(first: 1001) { next } }", "page_too_large"),
        ("{ customers { items { purchases(first: 101) { next } } } }", "page_too_large"),
        ("{ customers(first: 1000) { items { purchases(first: 100) { items { number } } } } }", "query_too_large"),
        (f"{{ purchases(first: 1) {{ items {{ {DEEP.replace('purchases', 'purchases(first: 1)')} }} }} }}", "too_deep"),
        ("{ " + " ".join(f"a{at}: customers {{ next }}" for at in range(21)) + " }", "too_many_roots"),
        (
            "{ customers { items { " + " ".join(f"a{at}: code" for at in range(limits.GRAPHQL_ALIASES_MAX + 1)) + " } } }",
            "too_many_aliases",
        ),
        ("{ customers { items { " + "code " * 400 + " } } }", "too_many_fields"),
        ("{ customers { items { " + "code " * 3_000 + " } } }", "invalid"),
        ("{ customers { items { " + "a" * 64 + ": code } } }", "invalid_query"),
        ("fragment A on Customer { ...B } fragment B on Customer { ...A } { customers { items { ...A } } }", "invalid"),
        ("{ customers { a: items { code } b: items { name } } }", "invalid_query"),
        ("{ purchases_aggregate { groups { key { number } } } }", "invalid_query"),
        ('{ purchases_aggregate(sort: ["name; drop"]) { more } }', "invalid_query"),
        ("{ purchases(filter: {number: {eq: 99999999999999999999999}}) { next } }", "invalid_value"),
        ("query ($x: Long) { purchases(filter: {number: {eq: $x}}) { next } }", "invalid_query"),
    ],
    ids=lambda value: value[:48],
)
async def test_what_is_refused(shop: Shop, text: str, code: str) -> None:
    assert await refusal(shop, text, {"x": None}) == code


async def test_introspection_is_answered_from_memory(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphql import build_client_schema, get_introspection_query, validate_schema

    data = await shop.query(get_introspection_query())
    schema = build_client_schema(data)
    assert validate_schema(schema) == []
    assert schema.mutation_type is None
    monkeypatch.setattr("tenon.ontology.objects.graphql_language.service.execute_sync", None)
    assert await shop.query(get_introspection_query()) == data


async def test_wrong_variables_are_refused(shop: Shop) -> None:
    text = "query ($filter: Customer_Filter!, $first: Int) { customers(filter: $filter, first: $first) { next } }"
    nested: dict[str, Any] = {"code": {"eq": "x"}}
    for _ in range(400):
        nested = {"not": nested}
    for variables in (
        {},
        {"filter": None},
        {"filter": {"x": 1}},
        {"filter": {"name": "x"}},
        {"filter": {}, "first": "5"},
        {"filter": {}, "first": 1.5},
        {"filter": nested},
    ):
        assert await refusal(shop, text, variables) in ("invalid", "invalid_query", "filter_too_deep"), variables
