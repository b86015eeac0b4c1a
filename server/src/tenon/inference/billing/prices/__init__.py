"""Prices: what a model costs its callers, in versions that never change, and what a record costs by one of them.

Owns: `price`. Promises: a version begins in the future and is never changed; a record's cost is a pure function of the record and one version.
Needs: policy, audit, limits (the governance revision), models (the rule for names).
"""
