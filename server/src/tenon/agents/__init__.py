"""Agents: the joint of both products. A session reads the ontology and calls models under one key, one ceiling, one policy, one audit log."""
