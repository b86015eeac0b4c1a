"""Verification of the audit log: of an evidence pack by anybody, and of the whole database by its operator.

Owns: the evidence pack's format and every check. Promises: `evidence_packs` runs without Tenon's database and names what is wrong.
Needs: `log` and `sequencing` for the database's check; the pack's check needs nothing.
"""
