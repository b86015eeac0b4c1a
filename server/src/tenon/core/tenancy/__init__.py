"""Tenancy: organisations and what separates them.

Owns: tenants and projects, their roles and schemas. Promises: a tenant exists with its role, its schema and its first project, or not at
all. Needs: the logins `provision` and `migrate`.
"""

from tenon.core.tenancy.contracts import Tenant
from tenon.core.tenancy.service import create_tenant, find_tenant, list_tenant_ids, project_exists

__all__ = ["Tenant", "create_tenant", "find_tenant", "list_tenant_ids", "project_exists"]
