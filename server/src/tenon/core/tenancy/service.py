"""Create and find tenants. An operator's task, run with the system logins, never under a tenant's role."""

from __future__ import annotations

import re
from uuid import UUID

from tenon.core.context import Context, ProjectId, TenantId
from tenon.core.tenancy import repository
from tenon.core.tenancy.contracts import Tenant
from tenon.kit.database import Database, WriteSession
from tenon.kit.errors import Conflict, ErrorCode, Invalid
from tenon.kit.ids import uuid7

NAME = re.compile(r"^[a-z0-9-]{1,63}$")


async def find_tenant(provision: Database, name: str) -> Tenant | None:
    """The tenant with this name, or None."""
    async with provision.system() as session:
        row = await repository.tenant_by_name(session, name)
    return Tenant(TenantId(row[0]), name, ProjectId(row[1])) if row else None


async def list_tenant_ids(session: WriteSession) -> list[TenantId]:
    """All tenants. For a login that may see them all, such as `migrate`."""
    return [TenantId(id) for id in await repository.tenant_ids(session)]


async def project_exists(session: WriteSession, ctx: Context, project: UUID) -> bool:
    """Whether the caller's tenant has this project."""
    return await repository.project_exists(session, ctx.tenant, project)


async def create_tenant(provision: Database, migrate: Database, name: str) -> Tenant:
    """A new tenant with role, schema and default project. Raises Invalid for a bad name, Conflict `tenant_exists`.

    Two transactions, because two logins: the role and the schema come first and harm nobody if the rows never follow.
    """
    if not NAME.match(name):
        raise Invalid(ErrorCode.INVALID_TENANT_NAME, "A tenant's name is 1 to 63 of a-z, 0-9 and -.", path="name")
    if await find_tenant(provision, name):
        raise Conflict(ErrorCode.TENANT_EXISTS, f"A tenant named {name} exists already.", path="name")
    tenant = Tenant(TenantId(uuid7()), name, ProjectId(uuid7()))
    async with provision.system() as session:
        await repository.create_role(session, provision.names, tenant.id)
    async with migrate.system() as session:
        await repository.create_schema(session, provision.names, tenant.id)
    async with provision.system() as session:
        await repository.insert_tenant(session, tenant.id, name, tenant.project)
    return tenant
