"""Budgets: what may be spent in a period, and what soft budgets have come to.

Owns: `budget`, and `budget_period` together with leases. Promises: a soft budget is counted in the transaction that stores its records, and
each threshold is published once a period. Needs: policy, audit, events, identity, limits (subjects, the governance revision).
"""
