"""The audit log's formats: what is hashed, how hashes form a tree, and what is signed.

Owns: an entry's bytes, the RFC 6962 tree, signed checkpoints, and the journal of signed heads outside the database.
Promises: the same entry has the same bytes on every machine. Needs: nothing of the database.
"""
