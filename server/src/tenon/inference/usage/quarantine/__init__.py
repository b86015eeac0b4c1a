"""Quarantine: shipped records that cannot be booked, kept as they came until an operator releases them.

Owns: `usage_quarantine`. Promises: each is kept once, and booked at most once. Needs: usage (to book), identity, policy, audit, the login `usage`.
"""
