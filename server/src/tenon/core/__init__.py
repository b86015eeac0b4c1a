"""The core both products stand on: who acts (identity, tenancy), what they may (policy), and what is remembered of it (audit, events)."""
