"""The `tenon` command: starts and stops an installation, applies ontologies, loads data, manages tenants and keys, verifies evidence."""
