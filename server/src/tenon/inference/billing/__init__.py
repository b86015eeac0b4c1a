"""Billing: what calls cost, and what may be spent.

Owns: versions of prices, budgets, their periods, leases. Promises: a version of a price never changes, and the cost of a record is a pure
function of both; what a hard budget's leases may spend never adds up to more than the budget, whoever dies, is cut off or has another
time (leasing.py says how); a soft budget warns at 80 and 100 %. Needs: policy, audit, events, limits (subjects, the revision), the login
`lease` to grant, the login `usage` to count.
"""

from tenon.inference.billing.charging import charge_leases, charge_soft, soft_budgets_of
from tenon.inference.billing.contracts import (
    Answer,
    Budget,
    BudgetDraft,
    BudgetState,
    Mode,
    Period,
    Price,
    PriceDraft,
    Quantities,
    Rated,
    Report,
    SoftBudget,
    SoftUse,
    Want,
)
from tenon.inference.billing.leasing import Leasing, exchange
from tenon.inference.billing.periods import starts_at
from tenon.inference.billing.rating import COST_NANO_MAX, in_force, rate
from tenon.inference.billing.service import budgets_of, prices_for, prices_of

__all__ = [
    "COST_NANO_MAX",
    "Answer",
    "Budget",
    "BudgetDraft",
    "BudgetState",
    "Leasing",
    "Mode",
    "Period",
    "Price",
    "PriceDraft",
    "Quantities",
    "Rated",
    "Report",
    "SoftBudget",
    "SoftUse",
    "Want",
    "budgets_of",
    "charge_leases",
    "charge_soft",
    "exchange",
    "in_force",
    "prices_for",
    "prices_of",
    "rate",
    "soft_budgets_of",
    "starts_at",
]
