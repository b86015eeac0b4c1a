"""The core that both products stand on: who acts (identity, tenancy), what they may do (policy), what is recorded (audit, events)."""
