"""Derivation: from an action type and its inputs to the diff, by making the real edits.

Owns: planning and applying edits, diffs and their inverse, dry runs. Promises: a simulation and an execution take the same path, so they
cannot differ. Every object is locked, in one order, before it changes. A reader sees no value above its clearance. Needs: language, schema.
"""

from tenon.ontology.actions.derivation.contracts import ActionInputs

__all__ = ["ActionInputs"]
