"""The tenant wall, looked at in the catalogue and pushed against with hostile SQL (issue: "with any SQL under its own role")."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psycopg
import pytest

from tenon.kit.database import RoleNames, access, bootstrap
from tenon.kit.database.roles import object_schema
from tools.generated import diff

ACCESS_FILE = Path(__file__).parents[4] / "contracts" / "access.json"


@pytest.fixture
def admin(cluster, settings):
    with psycopg.connect(cluster.admin_conninfo, dbname=settings.database.name, autocommit=True) as connection:
        yield connection


@pytest.fixture
def names(settings) -> RoleNames:
    return RoleNames(settings.database.installation)


async def test_every_wall_stands(admin, names, tenant_a) -> None:
    assert access.breaches(access.describe(admin, names)) == []


async def test_access_is_the_checked_in_table(admin, names, tenant_a) -> None:
    """`make generate` writes it again; the diff is what a reviewer decides on. Object tables are compared elsewhere."""
    table = access.describe(admin, names)
    table = {part: [row for row in rows if "d_TENANT" not in json.dumps(row)] for part, rows in table.items()}
    text = json.dumps(table, indent=1, sort_keys=True) + "\n"
    if os.environ.get("TENON_GENERATE"):
        ACCESS_FILE.write_text(text)
    difference = diff(ACCESS_FILE, text)
    assert not difference, f"The database's access changed. Run `make generate` and read the diff of contracts/access.json.\n{difference}"


@pytest.mark.parametrize(
    ("break_it", "mend_it", "said"),
    [
        (
            "alter table tenon.project no force row level security",
            "alter table tenon.project force row level security",
            "tenon.project has no",
        ),
        ("grant select on tenon.principal to public", "revoke select on tenon.principal from public", "PUBLIC holds select"),
        ("create view tenon.leak as select * from tenon.principal", "drop view tenon.leak", "view tenon.leak lacks"),
        ("create materialized view tenon.leak as select 1 as x", "drop materialized view tenon.leak", "materialised view"),
        ("create table tenon.leak (x int)", "drop table tenon.leak", "tenon.leak has no"),
        (
            "create function tenon.leak() returns int language sql security definer return 1",
            "drop function tenon.leak()",
            "open search_path",
        ),
        ("alter role {api} bypassrls", "alter role {api} nobypassrls", "bypasses row-level security"),
        ("grant {tenant} to {relay} with inherit true", "revoke {tenant} from {relay}", "inherits"),
    ],
)
async def test_a_fallen_wall_is_seen(admin, names, tenant_a, break_it: str, mend_it: str, said: str) -> None:
    fill = {"api": names.login("api"), "relay": names.login("relay"), "tenant": names.tenant(tenant_a.tenant_id)}
    admin.execute(break_it.format(**fill))
    try:
        assert any(said in breach for breach in access.breaches(access.describe(admin, names)))
    finally:
        admin.execute(mend_it.format(**fill))


async def test_start_up_sees_a_login_that_inherits_and_an_open_set_config(admin, names, settings, tenant_a) -> None:
    conninfo = settings.database.conninfo(names.login("api"))
    assert bootstrap.check(conninfo, names) == []
    role, api = names.tenant(tenant_a.tenant_id), names.login("api")
    admin.execute(f"grant {role} to {api} with inherit true")
    admin.execute("grant execute on function pg_catalog.set_config(text, text, boolean) to public")
    try:
        assert len(bootstrap.check(conninfo, names)) == 2
    finally:
        admin.execute(f"revoke inherit option for {role} from {api}")
        admin.execute("revoke execute on function pg_catalog.set_config(text, text, boolean) from public")


def fixed_tables(admin) -> list[str]:
    return [row[0] for row in admin.execute(
        "select 'tenon.' || relname from pg_class where relnamespace = 'tenon'::regnamespace and relkind in ('r', 'p')"
        " and relname <> 'schema_version' order by 1")]  # fmt: skip


ESCAPES = [
    "select set_config('role', '{a}', true)",
    "select set_config('role', 'none', true), (select count(*) from {table})",
    "select * from ts_stat(format('select to_tsvector(t::text) from {table} t where %L is not null', set_config('role', '{a}', true)))",
    "select query_to_xml('set role {a}', true, true, '')",
    "select query_to_xml('select set_config(''role'', ''{a}'', true)', true, true, '')",
    "with out as (update pg_settings set setting = '{a}' where name = 'role' returning 1) select * from out",
    "do $$ begin execute 'set local role {a}'; end $$",
    "create function pg_temp.f() returns int language sql as 'select 1'",
    "create temp table x (y int)",
    "create table tenon.x (y int)",
    "create schema x",
    "select pg_read_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "copy {table} to program 'cat'",
    "alter role {b} superuser",
    "grant {a} to {b}",
    "truncate {table}",
    "alter table {table} disable row level security",
]


@pytest.mark.parametrize("statement", ESCAPES)
async def test_no_statement_leaves_the_role(admin, names, settings, tenant_a, tenant_b, statement: str) -> None:
    """As tenant B, inside one transaction of the pool's login; whatever happens, the next statement still sees nothing of A."""
    a, b = names.tenant(tenant_a.tenant_id), names.tenant(tenant_b.tenant_id)
    with psycopg.connect(settings.database.conninfo(names.login("api"))) as connection:
        connection.execute("select set_config('role', %s, true)", [b])
        connection.execute("savepoint before")
        refused = ""
        try:
            connection.execute(statement.format(a=a, b=b, table="tenon.principal").encode())
        except psycopg.Error as error:
            refused = type(error).__name__
            connection.execute("rollback to savepoint before")
        role = connection.execute("select current_user").fetchone()
        seen = connection.execute("select count(*) from tenon.principal where tenant_id = %s", [tenant_a.tenant_id]).fetchone()
    assert role == (b,)
    assert seen == (0,)
    assert refused, f"expected a refusal of: {statement}"


async def test_a_tenant_sees_no_row_of_another_in_any_table(admin, names, settings, tenant_a, tenant_b) -> None:
    """Every fixed table, as the tenant's role and with forged settings; a table that a tenant may not read at all is fine too."""
    b = names.tenant(tenant_b.tenant_id)
    with psycopg.connect(settings.database.conninfo(names.login("api"))) as connection:
        connection.execute("select set_config('role', %s, true), set_config('tenon.tenant', %s, true)", [b, str(tenant_a.tenant_id)])
        connection.execute(f"set local tenon.tenant_id = '{tenant_a.tenant_id}'")
        connection.execute(f"set local tenon.principal = '{tenant_a.context('operator').principal}'")
        for table in fixed_tables(admin):
            column = "id" if table == "tenon.tenant" else "tenant_id"
            connection.execute("savepoint look")
            try:
                row = connection.execute(f"select count(*) from {table} where {column} <> %s".encode(), [tenant_b.tenant_id]).fetchone()
            except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedColumn):
                connection.execute("rollback to savepoint look")
                continue
            assert row == (0,), table


async def test_a_tenant_sees_nothing_of_anothers_schema(names, settings, tenant_a, tenant_b) -> None:
    with psycopg.connect(settings.database.conninfo(names.login("api"))) as connection:
        connection.execute("select set_config('role', %s, true)", [names.tenant(tenant_b.tenant_id)])
        row = connection.execute("select has_schema_privilege(%s, 'usage')", [object_schema(tenant_a.tenant_id)]).fetchone()
        assert row == (False,)


async def test_a_login_sees_nothing_without_a_role(admin, names, settings, tenant_a) -> None:
    with psycopg.connect(settings.database.conninfo(names.login("api")), autocommit=True) as connection:
        for table in fixed_tables(admin):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"select count(*) from {table}".encode())


async def test_a_tenant_cannot_write_rows_of_another(names, settings, tenant_a, tenant_b) -> None:
    with psycopg.connect(settings.database.conninfo(names.login("api"))) as connection:
        connection.execute("select set_config('role', %s, true)", [names.tenant(tenant_b.tenant_id)])
        changed = connection.execute("update tenon.principal set disabled_at = now() where tenant_id = %s", [tenant_a.tenant_id])
        assert changed.rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("insert into tenon.project (tenant_id, id, name) values (%s, gen_random_uuid(), 'x')", [tenant_a.tenant_id])
