"""The kit: what every room stands on and that knows no domain (database, ids, clock, errors, crypto, settings, telemetry)."""
