"""Context: who makes a request, for whom, under which ceiling. It is the first argument of everything below a handler; nothing is ambient.

Owns: Context and the domain's id types. Promises: frozen, made only by authentication (or by a system task for one tenant).
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
