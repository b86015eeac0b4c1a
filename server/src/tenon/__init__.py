"""Tenon's control plane: the ontology, the inference control and what agents do with both."""
