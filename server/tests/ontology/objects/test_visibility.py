"""What a caller may not see does not exist: in fields, filters, orders, groups, figures, links, the catalogue and the schema."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from objects_world import World, fill

from tenon.core.context import Context
from tenon.kit.errors import Forbidden, TenonError
from tenon.ontology.objects.graphql_language.documents import InvalidDocument

UNSEEN = ("email", "region")


def below(world: World, *markings: str) -> Context:
    """The viewer with only these markings."""
    return replace(world.ctx, clearance=frozenset(markings))


async def refused(world: World, ctx: Context, **asked: Any) -> TenonError:
    with pytest.raises(TenonError) as error:
        await world.objects.list(ctx, "customer", **asked)
    return error.value


@pytest.mark.parametrize("name", UNSEEN)
async def test_an_unseen_property_is_worded_like_one_that_does_not_exist(world: World, name: str) -> None:
    await fill(world)
    ctx = below(world)
    for asked in (
        {"fields": ["NAME"]}, {"filter": {"NAME": {"eq": "x"}}}, {"filter": {"not": {"NAME": {"is_null": True}}}},
        {"sort": ["NAME"]}, {"sort": ["-NAME"]},
    ):  # fmt: skip
        text = json.dumps(asked)
        unseen = await refused(world, ctx, **json.loads(text.replace("NAME", name)))
        unknown = await refused(world, ctx, **json.loads(text.replace("NAME", "nothing")))
        assert json.dumps(unseen.as_dict()).replace(name, "nothing") == json.dumps(unknown.as_dict())
        assert unseen.code == "unknown_property"


async def test_groups_figures_and_links_over_unseen_properties_do_not_exist(world: World) -> None:
    await fill(world)
    ctx = below(world)
    for asked in ({"group_by": ["region"]}, {"measures": {"min": ["email"]}}, {"group_by": ["tier"], "sort": ["max.email"]}):
        with pytest.raises(TenonError) as error:
            await world.objects.aggregate(ctx, "customer", **asked)
        assert error.value.code == "unknown_property"
    ada = world.stored["customer"][0]["id"]
    with pytest.raises(TenonError) as error:
        await world.objects.follow(ctx, "customer", ada, "region_info")
    assert error.value.code == "link_not_found"
    north = world.stored["region_info"][0]["id"]
    with pytest.raises(TenonError) as error:
        await world.objects.follow(ctx, "region_info", north, "customers")
    assert error.value.code == "link_not_found"


async def test_answers_catalogue_and_schema_hold_nothing_unseen(world: World) -> None:
    await fill(world)
    ctx = below(world)
    introspection = "{ __schema { types { name fields { name } inputFields { name } enumValues { name } } } }"
    seen = [
        await world.objects.list(ctx, "customer"), await world.objects.get(ctx, "customer", world.stored["customer"][0]["id"]),
        await world.objects.catalogue(ctx), json.dumps(await world.ask(introspection, ctx=ctx)).encode(),
    ]  # fmt: skip
    for text in seen:
        assert b"email" not in text
        assert b"ada@example.org" not in text
        assert b'"region"' not in text
        assert b"north" not in text
        assert b"region_ASC" not in text
    assert b"email" in await world.objects.catalogue(below(world, "pii"))
    assert b"ada@example.org" in await world.objects.list(below(world, "pii"), "customer")
    for query in (
        "{ customers { items { email } } }",
        '{ customers(filter: {email: {eq: "x"}}) { items { code } } }',
        "{ customers(sort: [region_ASC]) { next } }",
    ):
        with pytest.raises(InvalidDocument) as error:
            await world.ask(query, ctx=ctx)
        assert "Did you mean" not in str(error.value) or "email" not in str(error.value).split("Did you mean")[1]


async def test_a_plan_of_one_clearance_never_serves_another(world: World) -> None:
    await fill(world)
    for ctx, expected in ((world.ctx, True), (below(world), False), (world.ctx, True), (below(world, "secret"), False)):
        assert (b"ada@example.org" in await world.objects.list(ctx, "customer")) is expected
        data = await world.ask('{ __type(name: "Customer") { fields { name } } }', ctx=ctx)
        assert ({"name": "email"} in data["__type"]["fields"]) is expected


async def test_an_agents_base_key_reads_nothing_and_a_session_reads_under_its_ceiling(world: World) -> None:
    await fill(world)
    with pytest.raises(Forbidden):
        await world.objects.list(world.tenant.context("agent"), "customer")
    session = world.tenant.agent_session_context(frozenset({"secret"}))
    page = json.loads(await world.objects.list(session, "customer"))
    assert "region" in page["items"][0]
    assert "email" not in page["items"][0]


async def test_another_tenant_sees_nothing(world: World, other_world: World) -> None:
    """Tenant B, with tenant A's ids, the same ontology, every kind of read: not found or empty."""
    await fill(world)
    theirs = other_world.ctx
    objects = other_world.objects
    for kind, rows in world.stored.items():
        for row in rows:
            with pytest.raises(TenonError) as error:
                await objects.get(theirs, kind, row["id"])
            assert error.value.code == "object_not_found"
        assert json.loads(await objects.list(theirs, kind)) == {"items": [], "next": None}
        assert json.loads(await objects.aggregate(theirs, kind))["groups"][0]["count"] == 0
    for link in ("region_info", "purchases"):
        with pytest.raises(TenonError) as error:
            await objects.follow(theirs, "customer", world.stored["customer"][0]["id"], link)
        assert error.value.code == "object_not_found"
    data = await other_world.ask(
        "query ($id: UUID) { customer(id: $id) { code } customers { items { code } } }", {"id": world.stored["customer"][0]["id"]}
    )
    assert data == {"customer": None, "customers": {"items": []}}
