"""Tables: how an ontology is stored, and how one version becomes the next.

Owns: physical names, the DDL of object tables with their walls and history, and the plan of changes between two versions.
Promises: a rename changes no physical name; a name that was dropped is never used again.
Needs: the slice's `contracts` and `documents`.
"""
