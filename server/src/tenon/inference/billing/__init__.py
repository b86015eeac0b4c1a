"""Billing: what calls cost, and what may be spent.

Owns: versions of prices, budgets, their periods, leases; a sub-package each (`prices`, `budgets`, `leases`).
Promises: a version of a price never changes, and the cost of a record is a pure function of both. What a hard budget's leases may spend never
adds up to more than the budget, whoever dies, is cut off or has another time (leases/granting.py says how). A soft budget warns at 80 and 100 %.
Needs: policy, audit, events, identity, models (the rule for names), limits (subjects, the revision), the login `lease` to grant, the login
`usage` to count.
"""

from tenon.inference.billing.budgets.service import budgets_of, change_amount, create_budget, delete_budget, find_budget, list_budgets
from tenon.inference.billing.budgets.soft_budgets import charge_soft_budgets, soft_budgets_of
from tenon.inference.billing.contracts import (
    Budget,
    BudgetDraft,
    BudgetState,
    GatewayProcess,
    Lease,
    LeaseAnswer,
    LeaseReport,
    LeaseRequest,
    Mode,
    Period,
    Price,
    PriceDraft,
    Quantities,
    Rated,
    SoftBudget,
    SoftUse,
)
from tenon.inference.billing.leases.charging import charge_leases
from tenon.inference.billing.leases.granting import exchange_leases
from tenon.inference.billing.leases.service import list_leases, write_off
from tenon.inference.billing.periods import starts_at
from tenon.inference.billing.prices.rating import COST_NANO_MAX, in_force, rate
from tenon.inference.billing.prices.service import create_price, prices_of, prices_of_models

__all__ = [
    "COST_NANO_MAX",
    "Budget",
    "BudgetDraft",
    "BudgetState",
    "GatewayProcess",
    "Lease",
    "LeaseAnswer",
    "LeaseReport",
    "LeaseRequest",
    "Mode",
    "Period",
    "Price",
    "PriceDraft",
    "Quantities",
    "Rated",
    "SoftBudget",
    "SoftUse",
    "budgets_of",
    "change_amount",
    "charge_leases",
    "charge_soft_budgets",
    "create_budget",
    "create_price",
    "delete_budget",
    "exchange_leases",
    "find_budget",
    "in_force",
    "list_budgets",
    "list_leases",
    "prices_of",
    "prices_of_models",
    "rate",
    "soft_budgets_of",
    "starts_at",
    "write_off",
]
