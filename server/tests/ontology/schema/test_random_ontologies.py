"""Random ontologies apply, take objects, migrate and read back: names, values and walls survive every change the plan allows."""

from __future__ import annotations

import copy
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tenon.core import identity, tenancy
from tenon.core.context import Context
from tenon.ontology.schema import ObjectType, Ontology, Property, PropertyType, service
from tenon.ontology.schema.tables.change_plan import plan
from tenon.ontology.schema.tables.physical_names import content_of, from_content

TYPES = ("ship", "port", "crew")
NAMES = ("alpha", "beta_2", "gamma", "delta", "epsilon")
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
# A property as the document says it, and values it must take.
SHAPES: dict[str, tuple[dict[str, Any], st.SearchStrategy[Any]]] = {
    "text": ({"type": "text", "length_max": 12}, TEXTS),
    "code": ({"type": "text", "pattern": "[A-C]{1,3}(?:-[0-9]+)?", "length_max": 12}, st.from_regex(r"\A[A-C]{1,3}(-[0-9]{1,4})?\Z")),
    "integer": ({"type": "integer"}, st.integers(-(2**63), 2**63 - 1)),
    "bounded": ({"type": "integer", "minimum": -5, "maximum": 99}, st.integers(-5, 99)),
    "decimal": ({"type": "decimal", "scale": 3, "minimum": 0}, st.integers(0, 10**12)),
    "float": ({"type": "float"}, st.floats(allow_nan=False, allow_infinity=False)),
    "boolean": ({"type": "boolean"}, st.booleans()),
    "date": ({"type": "date"}, st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "timestamp": ({"type": "timestamp"}, st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 29), timezones=st.just(UTC))),
    "uuid": ({"type": "uuid"}, st.uuids()),
    "enum": ({"type": "enum", "enum": ["it's", "b\\c", "%d :x"]}, st.sampled_from(["it's", "b\\c", "%d :x"])),
}


@st.composite
def object_types(draw: st.DrawFn) -> dict[str, Any]:
    properties: dict[str, Any] = {"key": {"type": "integer"}}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5)):
        shape = draw(st.sampled_from(list(SHAPES)))
        properties[name] = {
            **copy.deepcopy(SHAPES[shape][0]),
            "description": shape,
            "required": draw(st.booleans()),
            "indexed": draw(st.booleans()),
        }
    return {"primary_key": "key", "properties": properties}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    object_types_ = {name: draw(object_types()) for name in draw(st.lists(st.sampled_from(TYPES), unique=True, min_size=1))}
    links = {}
    for source in object_types_:
        if draw(st.booleans()):
            target = draw(st.sampled_from(list(object_types_)))
            object_types_[source]["properties"].setdefault("other", {"type": "integer", "description": "integer"})
            inverse = {"inverse": f"from_{source}"} if draw(st.booleans()) else {}
            links[f"{source}.to_other"] = {"target": target, "via": {"other": "key"}, "dangling": "keep", **inverse}
    return {"ontology": 1, "object_types": object_types_, "links": links}


@st.composite
def changes(draw: st.DrawFn, document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A document that stored objects can follow, and where each property went: new path -> old path."""
    changed = copy.deepcopy(document)
    came_from = {}
    for object_type, entry in changed["object_types"].items():
        for name in list(entry["properties"]):
            item = entry["properties"][name]
            step = draw(st.sampled_from(["keep", "rename", "drop", "loosen"])) if name not in ("key", "other") else "keep"
            if step == "drop":
                del entry["properties"][name]
                continue
            if step == "loosen":
                item["required"] = False
                item.pop("minimum", None)
                if "enum" in item:
                    item["enum"] = [*item["enum"], "more"]
            came_from[f"{object_type}.{name}"] = f"{object_type}.{name}"
            if step == "rename":
                entry["properties"][f"{name}_new"] = {**entry["properties"].pop(name), "renamed_from": name}
                came_from[f"{object_type}.{name}_new"] = came_from.pop(f"{object_type}.{name}")
        if draw(st.booleans()):
            entry["properties"]["added"] = {"type": "text", "indexed": True, "length_max": 9}
    return changed, came_from


def values_for(data: st.DataObject, object_type: ObjectType, key: int) -> dict[str, Any]:
    values: dict[str, Any] = {"key": key}
    for name, item in object_type.properties.items():
        if name not in ("key", "added"):
            strategy = SHAPES[item.description][1]
            values[name] = data.draw(strategy if item.required else st.none() | strategy)
    return values


async def fresh_tenant(login: Any) -> Context:
    """The first operator of a new tenant: one for each example, and hypothesis has no fixtures for that."""
    tenant = await tenancy.create_tenant(login("provision"), login("migrate"), f"random-{uuid4().hex[:12]}")
    return await identity.first_operator(login("provision"), tenant.id, tenant.project, name="operator", clearance=frozenset())


async def apply(login: Any, ctx: Context, document: dict[str, Any]) -> service.Applied:
    async with login("migrate").system() as session:
        text = yaml.safe_dump(document, allow_unicode=True)
        return await service.apply(session, ctx, text, names=login("migrate").names)


async def insert(login: Any, ctx: Context, ontology: Ontology, object_type: ObjectType, values: dict[str, Any]) -> None:
    columns = {object_type.properties[name].column: value for name, value in values.items()}
    async with login("api").tenant(ctx.identity) as session:
        await session.execute(
            f"insert into {ontology.schema}.{object_type.table} (id, {', '.join(columns)}) values (:id, {', '.join(f':{name}' for name in columns)})",
            {"id": uuid4(), **columns},
        )


async def read(login: Any, ctx: Context, ontology: Ontology, object_type: ObjectType) -> list[dict[str, Any]]:
    async with login("api").tenant(ctx.identity) as session:
        rows = await session.rows(f"select * from {ontology.schema}.{object_type.table} order by {object_type.properties['key'].column}")
    return [{name: row[item.column] for name, item in object_type.properties.items()} for row in rows]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
async def test_random_ontologies_apply_migrate_and_read_back(login, data: st.DataObject) -> None:
    ctx = await fresh_tenant(login)
    document = data.draw(documents())
    first = (await apply(login, ctx, document)).ontology
    assert not (await apply(login, ctx, document)).changed
    stored: dict[str, list[dict[str, Any]]] = {}
    for object_type in first.object_types.values():
        stored[object_type.name] = [values_for(data, object_type, key) for key in (1, 2)]
        for values in stored[object_type.name]:
            await insert(login, ctx, first, object_type, values)
        assert await read(login, ctx, first, object_type) == stored[object_type.name]

    changed, came_from = data.draw(changes(document))
    second = (await apply(login, ctx, changed)).ontology
    assert not (await apply(login, ctx, changed)).changed
    for object_type in second.object_types.values():
        for row, before in zip(await read(login, ctx, second, object_type), stored[object_type.name], strict=True):
            for name, value in row.items():
                old = came_from.get(f"{object_type.name}.{name}")
                assert value == (before[old.split(".")[1]] if old else None)
        third = values_for(data, object_type, 3)
        await insert(login, ctx, second, object_type, third)
        assert (await read(login, ctx, second, object_type))[2] == {**dict.fromkeys(object_type.properties), **third}
    for ontology in (first, second):
        assert from_content(content_of(ontology), ontology.version, ontology.digest) == ontology
        assert plan(ontology, ontology, login("migrate").names, date(2026, 1, 1)).empty


def test_a_column_is_of_its_shape() -> None:
    """The strategies above and the types they stand for are one list."""
    assert {SHAPES[name][0]["type"] for name in SHAPES} == {item.value for item in PropertyType}
    assert Property("x", "p1", PropertyType.TEXT).length_max == 4_096
