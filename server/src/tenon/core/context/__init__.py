"""Context: who makes a request, for whom, under which ceiling. It is the first argument of everything below a handler.

Owns: `Context` and the domain's id types. Promises: frozen; built only by authentication, or by a system task for one tenant.
Needs: the database's `Identity`.
"""

from tenon.core.context.contracts import (
    Actor,
    Context,
    PrincipalId,
    PrincipalKind,
    ProjectId,
    SessionId,
    TenantId,
    context_of,
)

__all__ = ["Actor", "Context", "PrincipalId", "PrincipalKind", "ProjectId", "SessionId", "TenantId", "context_of"]
