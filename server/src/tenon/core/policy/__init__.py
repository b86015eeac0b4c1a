"""Policy: yes/no decisions by one Cedar bundle. Owns the bundle and the roles; promises closed-by-default and a reason for every no.

Code asks exactly what it does, `authorize(ctx, Action.APPROVE, resource)`; who may is in `bundle/*.cedar`. Needs: context.
"""

from tenon.core.policy.contracts import Action, Permitted, Resource
from tenon.core.policy.service import authorize, bundle_version, is_permitted

__all__ = ["Action", "Permitted", "Resource", "authorize", "bundle_version", "is_permitted"]
