"""The `tenon` command: it starts and stops an installation, applies ontologies, loads data, manages tenants and verifies evidence.

Owns: the state directory of an installation, the supervisor of its processes, the demo tenant. Promises: a failed command says what to do.
Needs: PostgreSQL 18, embedded or external; the gateway's program.
"""
