"""Proposals: the way of a change from proposal to execution, and back.

Owns: proposals, decisions, steps and the action log. Promises: what is executed is exactly what was simulated and approved, or nothing;
nobody approves a proposal of their own; every step is audited. Needs: derivation, identity, policy, audit, events.
"""
