"""Leases: the part of a hard budget that one process of a gateway may spend.

Owns: `lease`, and `budget_period` together with budgets. Promises: what open leases may spend and closed ones have spent never adds up to more
than the budget (granting.py says how). Needs: budgets, events, audit, the logins `lease` and `usage`.
"""
