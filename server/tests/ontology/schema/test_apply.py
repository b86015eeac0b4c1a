"""Apply on a real database: tables and catalogue in one transaction, walls raised, repeating changes nothing, change is planned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tenon.kit.database import Database
from tenon.kit.errors import Forbidden, Invalid, NotFound
from tenon.ontology.schema import ObjectType, Ontologies, Problem, service
from tenon.ontology.schema.tables.change_plan import Plan

AIRLINE = (Path(__file__).parents[4] / "examples/airline/ontology.yaml").read_text().split("\naction_types:")[0]
SHIP = """
ontology: 1
markings: [secret]
object_types:
  ship:
    primary_key: name
    properties:
      name: {type: text, length_max: 40}
      class: {type: enum, enum: [tanker, ferry]}
      tons: {type: integer, minimum: 0, indexed: true}
      owner: {type: text, required: true, length_max: 20}
"""


async def apply(login, tenant, text: str, role: str = "operator", **kw) -> service.Applied:
    migrate: Database = login("migrate")
    async with migrate.system() as session:
        return await service.apply(session, tenant.context(role), text, names=migrate.names, **kw)


async def plan(login, tenant, text: str) -> Plan:
    migrate: Database = login("migrate")
    async with migrate.system() as session:
        return await service.plan(session, tenant.context("operator"), text, names=migrate.names)


async def insert_ship(login, tenant, ship: ObjectType, schema: str, **values: object) -> None:
    columns = {ship.properties[name].column: value for name, value in values.items()}
    names = ", ".join(columns)
    async with login("api").tenant(tenant.context("editor").identity) as session:
        await session.execute(
            f"insert into {schema}.{ship.table} (id, {names}) values (gen_random_uuid(), {', '.join(f':{name}' for name in columns)})",
            columns,
        )


async def test_airline_example_applies_and_reads_back(login, tenant_a) -> None:
    applied = await apply(login, tenant_a, AIRLINE)
    assert applied.changed
    assert applied.ontology.version == 1
    read = await Ontologies(login("api")).current(tenant_a.tenant_id)
    assert read == applied.ontology
    assert set(read.object_types) == {"airline", "airport", "plane", "flight", "weather", "disruption"}


async def test_applying_again_changes_nothing(login, tenant_a) -> None:
    first = await apply(login, tenant_a, SHIP)
    again = await apply(login, tenant_a, SHIP + "\n# a comment changes nothing\n")
    assert first.changed
    assert not again.changed
    assert again.ontology == first.ontology
    assert (await plan(login, tenant_a, SHIP)).empty


async def test_who_may_not(login, tenant_a) -> None:
    with pytest.raises(Forbidden):
        await apply(login, tenant_a, SHIP, "editor")


async def test_without_an_ontology_it_is_not_found(login, tenant_a) -> None:
    with pytest.raises(NotFound) as caught:
        await Ontologies(login("api")).current(tenant_a.tenant_id)
    assert caught.value.code == "no_ontology"


async def test_problems_of_actions_stop_everything(login, tenant_a) -> None:
    wrong = Problem("bad_action", "action_types.x.edits", "It edits nothing.")
    with pytest.raises(Invalid) as caught:
        await apply(login, tenant_a, SHIP, check_actions=lambda _: [wrong])
    assert caught.value.path == "action_types.x.edits"
    with pytest.raises(NotFound):
        await Ontologies(login("api")).current(tenant_a.tenant_id)


async def test_concurrent_applies_serialise(login, tenant_a) -> None:
    texts = [SHIP, SHIP.replace("ferry", "barge"), SHIP, SHIP.replace("ferry", "tug")]
    done = await asyncio.gather(*(apply(login, tenant_a, text) for text in texts))
    versions = [item.ontology.version for item in done if item.changed]
    assert sorted(versions) == list(range(1, len(versions) + 1))


async def test_walls_of_object_tables(login, tenant_a, tenant_b) -> None:
    """Every table of the schema forces row-level security; another tenant's role may not even look into the schema."""
    ontology = (await apply(login, tenant_a, SHIP)).ontology
    await insert_ship(login, tenant_a, ontology.object_types["ship"], ontology.schema, name="Ada", owner="x")
    table = f"{ontology.schema}.{ontology.object_types['ship'].table}"
    async with login("migrate").system() as session:
        open_tables = await session.rows(
            "select relname from pg_class where relnamespace = to_regnamespace(:schema)::oid and relkind in ('r', 'p')"
            " and not (relrowsecurity and relforcerowsecurity)",
            {"schema": ontology.schema},
        )
        grants = await session.rows(
            "select grantee, table_name, privilege_type from information_schema.role_table_grants"
            " where table_schema = :schema and grantee <> current_user",
            {"schema": ontology.schema},
        )
    assert open_tables == []
    role = login("api").names.tenant(tenant_a.tenant_id)
    assert {row["grantee"] for row in grants} == {role}
    history = {row["privilege_type"] for row in grants if row["table_name"].endswith("_history")}
    assert history == {"SELECT", "INSERT"}, "history is insert-only"
    with pytest.raises(Exception, match="permission denied"):
        async with login("api").tenant(tenant_b.context("operator").identity) as session:
            await session.rows(f"select * from {table}")
    with pytest.raises(Exception, match="permission denied"):
        async with login("api").system() as session:
            await session.rows(f"select * from {table}")


async def test_history_keeps_before_images_and_nothing_for_inserts(login, tenant_a) -> None:
    ontology = (await apply(login, tenant_a, SHIP)).ontology
    ship = ontology.object_types["ship"]
    await insert_ship(login, tenant_a, ship, ontology.schema, name="Ada", owner="x", tons=5)
    tons = ship.properties["tons"].column
    ctx = tenant_a.context("editor")
    async with login("api").tenant(ctx.identity) as session:
        await session.execute("set local tenon.cause = 'proposal/7'")
        await session.execute(f"update {ontology.schema}.{ship.table} set version = version + 1, {tons} = 6")
        await session.execute(f"delete from {ontology.schema}.{ship.table}")
        rows = await session.rows(f"select * from {ontology.schema}.{ship.table}_history order by version")
    assert [(row["version"], row["operation"], row["before"][tons], row["cause"]) for row in rows] == [
        (1, "U", 5, "proposal/7"),
        (2, "D", 6, "proposal/7"),
    ]
    assert {row["principal"] for row in rows} == {ctx.principal}


async def test_rename_keeps_table_column_and_rows(login, tenant_a) -> None:
    first = (await apply(login, tenant_a, SHIP)).ontology
    await insert_ship(login, tenant_a, first.object_types["ship"], first.schema, name="Ada", owner="x")
    renamed = SHIP.replace("  ship:\n", "  vessel:\n    renamed_from: ship\n").replace("owner: {", "operator: {renamed_from: owner, ")
    planned = await plan(login, tenant_a, renamed)
    assert [change.statements for change in planned.changes] == [(), (), ()], "a rename is only the catalogue's"
    second = (await apply(login, tenant_a, renamed)).ontology
    vessel = second.object_types["vessel"]
    assert vessel.table == first.object_types["ship"].table
    assert vessel.properties["operator"].column == first.object_types["ship"].properties["owner"].column
    assert not (await apply(login, tenant_a, renamed)).changed


async def test_growing_and_shrinking(login, tenant_a) -> None:
    first = (await apply(login, tenant_a, SHIP)).ontology
    await insert_ship(login, tenant_a, first.object_types["ship"], first.schema, name="Ada", owner="x")
    grown = SHIP.replace("ferry]", "ferry, barge]").replace("length_max: 20", "length_max: 30").replace("minimum: 0, ", "minimum: -5, ")
    grown = grown.replace("      owner", "      flag: {type: boolean}\n      owner")
    second = (await apply(login, tenant_a, grown)).ontology
    await insert_ship(
        login, tenant_a, second.object_types["ship"], second.schema, name="Bob", owner="y" * 30, tons=-3, **{"class": "barge"}
    )
    shrunk = grown.replace("      owner: {type: text, required: true, length_max: 30}\n", "")
    third = (await apply(login, tenant_a, shrunk)).ontology
    assert "owner" not in third.object_types["ship"].properties
    await insert_ship(login, tenant_a, third.object_types["ship"], third.schema, name="Cy")
    back = (await apply(login, tenant_a, grown.replace("required: true, ", ""))).ontology
    columns = {version.object_types["ship"].properties["owner"].column for version in (second, back)}
    assert len(columns) == 2, "a dropped column's name is never used again"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("tons: {type: integer, minimum: 0", "tons: {type: decimal, minimum: 0"), "type_changed"),
        (("primary_key: name", "primary_key: owner"), "primary_key_changed"),
        (("minimum: 0", "minimum: 10"), "stored_objects_violate"),
        (("class: {type: enum,", "class: {required: true, type: enum,"), "stored_objects_violate"),
        (("      owner", "      flag: {type: boolean, required: true}\n      owner"), "stored_objects_violate"),
    ],
)
async def test_what_stored_objects_cannot_follow(login, tenant_a, change: tuple[str, str], code: str) -> None:
    first = (await apply(login, tenant_a, SHIP)).ontology
    await insert_ship(login, tenant_a, first.object_types["ship"], first.schema, name="Ada", owner="x", tons=5)
    with pytest.raises(Invalid) as caught:
        await apply(login, tenant_a, SHIP.replace(*change))
    assert caught.value.code == "ontology_incompatible"
    assert caught.value.details["problems"][0]["code"] == code
    async with login("api").tenant(tenant_a.context("viewer").identity) as session:
        assert await service.current(session, tenant_a.tenant_id) == first, "nothing was changed"


async def test_removed_type_can_no_longer_be_reached(login, tenant_a) -> None:
    both = SHIP + "  port:\n    primary_key: code\n    properties:\n      code: {type: text, length_max: 5}\n"
    first = (await apply(login, tenant_a, both)).ontology
    await apply(login, tenant_a, SHIP)
    with pytest.raises(Exception, match="permission denied"):
        async with login("api").tenant(tenant_a.context("operator").identity) as session:
            await session.rows(f"select * from {first.schema}.{first.object_types['port'].table}")


async def test_versions_are_seen_within_a_second(login, tenant_a) -> None:
    ontologies = Ontologies(login("api"))
    await apply(login, tenant_a, SHIP)
    assert (await ontologies.current(tenant_a.tenant_id)).version == 1
    assert ontologies.known(tenant_a.tenant_id) is not None
    await apply(login, tenant_a, SHIP.replace("ferry", "barge"))
    await asyncio.sleep(1.05)
    assert ontologies.known(tenant_a.tenant_id) is None
    assert (await ontologies.current(tenant_a.tenant_id)).version == 2


async def test_history_partitions_are_made_once(login, tenant_a, monkeypatch) -> None:
    await apply(login, tenant_a, SHIP)
    migrate = login("migrate")
    async with migrate.system() as session:
        assert await service.make_history_partitions(session, tenant_a.tenant_id, migrate.names) == 0
    monkeypatch.setattr("tenon.ontology.schema.tables.ddl.HISTORY_MONTHS_AHEAD", 5)
    async with migrate.system() as session:
        assert await service.make_history_partitions(session, tenant_a.tenant_id, migrate.names) == 2
