"""Documents: an ontology document as a checked definition.

Owns: the language of ontology documents, its limits and reserved names.
Promises: every problem of a document is named at once, each with its path.
Needs: `kit.documents`, and the slice's `contracts` and `errors`.
"""
