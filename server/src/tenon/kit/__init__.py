"""The kit: what every package stands on.

Owns: database access, error codes, identifiers, the clock, settings, telemetry, documents. Promises: it knows no domain.
Needs: nothing of Tenon.
"""
