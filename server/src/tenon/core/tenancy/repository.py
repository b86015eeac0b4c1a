"""SQL of the tenancy slice; run as the login `provision` (roles, rows) and `migrate` (the schema)."""

from __future__ import annotations

from uuid import UUID

from tenon.kit.database import RoleNames, WriteSession
from tenon.kit.database.roles import TENANT_POOLS, object_schema


async def create_role(session: WriteSession, names: RoleNames, tenant: UUID) -> None:
    """The tenant's NOLOGIN role. The pools may become it and inherit nothing of it; it inherits the group's grants."""
    role = names.tenant(tenant)
    exists = await session.scalar("select 1 from pg_roles where rolname = :role", {"role": role})
    if not exists:
        await session.execute(f"create role {role} nologin")
    await session.execute(f"grant {names.tenants} to {role} with inherit true, set false")
    for pool in TENANT_POOLS:
        await session.execute(f"grant {role} to {names.login(pool)} with inherit false, set true")


async def create_schema(session: WriteSession, names: RoleNames, tenant: UUID) -> None:
    """The schema of the tenant's object tables, owned by `migrate`; the tenant may use it and create nothing in it."""
    schema = object_schema(tenant)
    await session.execute(f"create schema if not exists {schema}")
    await session.execute(f"grant usage on schema {schema} to {names.tenant(tenant)}")


async def insert_tenant(session: WriteSession, tenant: UUID, name: str, project: UUID) -> None:
    """The rows of a tenant and its default project."""
    await session.execute("insert into tenon.tenant (id, name) values (:id, :name)", {"id": tenant, "name": name})
    await session.execute(
        "insert into tenon.project (tenant_id, id, name) values (:tenant, :id, 'default')", {"tenant": tenant, "id": project}
    )


async def tenant_by_name(session: WriteSession, name: str) -> tuple[UUID, UUID] | None:
    """(tenant id, default project id) of a name, or None."""
    row = await session.row(
        "select t.id, p.id as project from tenon.tenant t join tenon.project p on p.tenant_id = t.id and p.name = 'default'"
        " where t.name = :name",
        {"name": name},
    )
    return (row["id"], row["project"]) if row else None


_TENANT_IDS = """
select id from tenon.tenant order by id
"""
_PROJECT_EXISTS = """
select true from tenon.project where tenant_id = :tenant and id = :project
"""


async def tenant_ids(session: WriteSession) -> list[UUID]:
    return [row["id"] for row in await session.rows(_TENANT_IDS)]


async def project_exists(session: WriteSession, tenant: UUID, project: UUID) -> bool:
    return bool(await session.scalar(_PROJECT_EXISTS, {"tenant": tenant, "project": project}))
