"""Limits: how many requests, tokens and calls at a time a tenant, project, key, principal or model may use, over all gateways.

Owns: limits, each gateway process's share of them, and the one revision over all that gateways are told as a tenant's governance.
Promises: the shares of a limit never add up to more than it, whatever messages are lost and whoever restarts (sharing.py says how).
Needs: policy, audit, the login `lease` to divide limits.
"""

from tenon.inference.limits.contracts import Asking, Demand, Governed, Limit, LimitDraft, LimitState, Share, Subject
from tenon.inference.limits.dividing import divide
from tenon.inference.limits.service import (
    begin_governance_change,
    checked_subject,
    create_limit,
    delete_limit,
    find_limit,
    governed_between,
    limits_of,
    list_limits,
    make_revision,
    newest_revision,
    replace_limit,
)

__all__ = [
    "Asking",
    "Demand",
    "Governed",
    "Limit",
    "LimitDraft",
    "LimitState",
    "Share",
    "Subject",
    "begin_governance_change",
    "checked_subject",
    "create_limit",
    "delete_limit",
    "divide",
    "find_limit",
    "governed_between",
    "limits_of",
    "list_limits",
    "make_revision",
    "newest_revision",
    "replace_limit",
]
