"""Policy: whether a principal may do an action on a resource, decided by one Cedar bundle.

Owns: the bundle, the roles, the words of a refusal. Promises: what no rule permits is refused, with the deciding rules named.
Needs: context. Code names exactly what it does, `authorize(ctx, Action.APPROVE, resource)`; the rules are in `bundle/*.cedar`.
"""

from tenon.core.policy.contracts import Action, Permitted, Resource
from tenon.core.policy.service import authorize, bundle_version, is_permitted

__all__ = ["Action", "Permitted", "Resource", "authorize", "bundle_version", "is_permitted"]
