"""What a caller may not see does not exist: in fields, filters, orders, groups, figures, links, the catalogue and the schema."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from shop_tenant import Shop, fill

from tenon.core.context import Context
from tenon.kit.errors import Forbidden, TenonError
from tenon.ontology.objects.graphql_language.documents import InvalidDocument

UNSEEN = ("email", "region")


def below(shop: Shop, *markings: str) -> Context:
    """The viewer with only these markings."""
    return replace(shop.ctx, clearance=frozenset(markings))


async def refused(shop: Shop, ctx: Context, **arguments: Any) -> TenonError:
    with pytest.raises(TenonError) as error:
        await shop.objects.list(ctx, "customer", **arguments)
    return error.value


@pytest.mark.parametrize("name", UNSEEN)
async def test_an_unseen_property_is_worded_like_one_that_does_not_exist(shop: Shop, name: str) -> None:
    await fill(shop)
    ctx = below(shop)
    for arguments in (
        {"fields": ["NAME"]}, {"filter": {"NAME": {"eq": "x"}}}, {"filter": {"not": {"NAME": {"is_null": True}}}},
        {"sort": ["NAME"]}, {"sort": ["-NAME"]},
    ):  # fmt: skip
        text = json.dumps(arguments)
        unseen = await refused(shop, ctx, **json.loads(text.replace("NAME", name)))
        unknown = await refused(shop, ctx, **json.loads(text.replace("NAME", "nothing")))
        assert json.dumps(unseen.as_dict()).replace(name, "nothing") == json.dumps(unknown.as_dict())
        assert unseen.code == "unknown_property"


async def test_groups_figures_and_links_over_unseen_properties_do_not_exist(shop: Shop) -> None:
    await fill(shop)
    ctx = below(shop)
    for arguments in ({"group_by": ["region"]}, {"measures": {"min": ["email"]}}, {"group_by": ["tier"], "sort": ["max.email"]}):
        with pytest.raises(TenonError) as error:
            await shop.objects.aggregate(ctx, "customer", **arguments)
        assert error.value.code == "unknown_property"
    ada = shop.stored["customer"][0]["id"]
    with pytest.raises(TenonError) as error:
        await shop.objects.follow(ctx, "customer", ada, "region_info")
    assert error.value.code == "link_not_found"
    north = shop.stored["region_info"][0]["id"]
    with pytest.raises(TenonError) as error:
        await shop.objects.follow(ctx, "region_info", north, "customers")
    assert error.value.code == "link_not_found"


async def test_answers_catalogue_and_schema_hold_nothing_unseen(shop: Shop) -> None:
    await fill(shop)
    ctx = below(shop)
    introspection = "{ __schema { types { name fields { name } inputFields { name } enumValues { name } } } }"
    seen = [
        await shop.objects.list(ctx, "customer"), await shop.objects.get(ctx, "customer", shop.stored["customer"][0]["id"]),
        await shop.objects.catalogue(ctx), json.dumps(await shop.query(introspection, ctx=ctx)).encode(),
    ]  # fmt: skip
    for text in seen:
        assert b"email" not in text
        assert b"ada@example.org" not in text
        assert b'"region"' not in text
        assert b"north" not in text
        assert b"region_ASC" not in text
    assert b"email" in await shop.objects.catalogue(below(shop, "pii"))
    assert b"ada@example.org" in await shop.objects.list(below(shop, "pii"), "customer")
    for query in (
        "{ customers { items { email } } }",
        '{ customers(filter: {email: {eq: "x"}}) { items { code } } }',
        "{ customers(sort: [region_ASC]) { next } }",
    ):
        with pytest.raises(InvalidDocument) as error:
            await shop.query(query, ctx=ctx)
        assert "Did you mean" not in str(error.value) or "email" not in str(error.value).split("Did you mean")[1]


async def test_a_plan_of_one_clearance_never_serves_another(shop: Shop) -> None:
    await fill(shop)
    for ctx, expected in ((shop.ctx, True), (below(shop), False), (shop.ctx, True), (below(shop, "secret"), False)):
        assert (b"ada@example.org" in await shop.objects.list(ctx, "customer")) is expected
        data = await shop.query('{ __type(name: "Customer") { fields { name } } }', ctx=ctx)
        assert ({"name": "email"} in data["__type"]["fields"]) is expected


async def test_an_agents_base_key_reads_nothing_and_a_session_reads_under_its_ceiling(shop: Shop) -> None:
    await fill(shop)
    with pytest.raises(Forbidden):
        await shop.objects.list(shop.tenant.context("agent"), "customer")
    session = shop.tenant.agent_session_context(frozenset({"secret"}))
    page = json.loads(await shop.objects.list(session, "customer"))
    assert "region" in page["items"][0]
    assert "email" not in page["items"][0]


async def test_another_tenant_sees_nothing(shop: Shop, other_shop: Shop) -> None:
    """Tenant B, with tenant A's ids, the same ontology, every kind of read: not found or empty."""
    await fill(shop)
    theirs = other_shop.ctx
    objects = other_shop.objects
    for type_name, rows in shop.stored.items():
        for row in rows:
            with pytest.raises(TenonError) as error:
                await objects.get(theirs, type_name, row["id"])
            assert error.value.code == "object_not_found"
        assert json.loads(await objects.list(theirs, type_name)) == {"items": [], "next": None}
        assert json.loads(await objects.aggregate(theirs, type_name))["groups"][0]["count"] == 0
    for link in ("region_info", "purchases"):
        with pytest.raises(TenonError) as error:
            await objects.follow(theirs, "customer", shop.stored["customer"][0]["id"], link)
        assert error.value.code == "object_not_found"
    data = await other_shop.query(
        "query ($id: UUID) { customer(id: $id) { code } customers { items { code } } }", {"id": shop.stored["customer"][0]["id"]}
    )
    assert data == {"customer": None, "customers": {"items": []}}
