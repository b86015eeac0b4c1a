"""Limits: how many requests, tokens and calls at a time a tenant, project, key, principal or model may use, over all gateways.

Owns: limits, each gateway process's share of them, and the one revision over a tenant's limits, budgets and prices.
Promises: the shares of a limit never add up to more than it, whatever messages are lost and whoever restarts (share_allocation.py says how).
Needs: policy, audit, identity and tenancy (whether a subject exists), models (the rule for names), the login `lease` to divide limits.
"""

from tenon.inference.limits.contracts import Demand, Governed, Limit, LimitDraft, LimitState, Share, ShareRequest, Subject
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
from tenon.inference.limits.share_exchange import exchange_shares

__all__ = [
    "Demand",
    "Governed",
    "Limit",
    "LimitDraft",
    "LimitState",
    "Share",
    "ShareRequest",
    "Subject",
    "begin_governance_change",
    "checked_subject",
    "create_limit",
    "delete_limit",
    "exchange_shares",
    "find_limit",
    "governed_between",
    "limits_of",
    "list_limits",
    "make_revision",
    "newest_revision",
    "replace_limit",
]
