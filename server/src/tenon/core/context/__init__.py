"""Context: who asks, for whom, under which ceiling. The first argument of everything below a door; nothing about it is ambient.

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
