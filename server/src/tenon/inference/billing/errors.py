"""What can go wrong with prices and budgets.

TenonError
├── Invalid   invalid_price, invalid_budget, invalid_amount, too_many_budgets, too_many_prices
├── NotFound  price_not_found, budget_not_found, lease_not_found
└── Conflict  price_exists, budget_exists, lease_not_open, lease_still_valid
"""

from __future__ import annotations

from datetime import datetime

from tenon.kit import canonical
from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound


def invalid_price(reason: str, path: str) -> Invalid:
    return Invalid(ErrorCode.INVALID_PRICE, reason, path=path)


def invalid_budget(reason: str, path: str) -> Invalid:
    return Invalid(ErrorCode.INVALID_BUDGET, reason, path=path)


def price_not_found() -> NotFound:
    return NotFound(ErrorCode.PRICE_NOT_FOUND, "There is no such price.")


def budget_not_found() -> NotFound:
    return NotFound(ErrorCode.BUDGET_NOT_FOUND, "There is no such budget.")


def lease_not_found() -> NotFound:
    return NotFound(ErrorCode.LEASE_NOT_FOUND, "This budget has no such lease.")


def price_exists() -> Conflict:
    return Conflict(ErrorCode.PRICE_EXISTS, "This model has another price from that instant on.", path="effective_from")


def budget_exists() -> Conflict:
    return Conflict(
        ErrorCode.BUDGET_EXISTS, "There is such a budget already.", path="subject_id", repair="Change that one's amount instead."
    )


def lease_not_open(state: str) -> Conflict:
    return Conflict(ErrorCode.LEASE_NOT_OPEN, f"This lease is {state.replace('_', ' ')} already.")


def lease_still_valid(deadline: datetime) -> Conflict:
    return Conflict(
        ErrorCode.LEASE_STILL_VALID,
        f"Its gateway may reserve on this lease until {canonical.plain(deadline)}.",
        repair="Write it off after that, when you are sure that the gateway and its log are gone.",
    )
