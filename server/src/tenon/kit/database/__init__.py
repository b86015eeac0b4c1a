"""The database: roles and walls, transactions under a tenant's role, the fast lane for reads, idempotent writes.

Owns: how a connection becomes a tenant. Promises: no statement of a request runs outside its tenant's role; the role and its settings end
with the transaction. Needs: PostgreSQL 18, prepared by `bootstrap`.
"""

from tenon.kit.database.roles import RoleNames
from tenon.kit.database.sessions import Database, Identity, WriteSession

__all__ = ["Database", "Identity", "RoleNames", "WriteSession"]
