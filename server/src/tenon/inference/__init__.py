"""The inference gateway's control plane: which models there are, what may be used of them, what was used, and what it costs.

Owns: models, limits, usage, billing, and the gateways' stream; a slice each.
Promises: the gateways receive every change in order, and every call they report is stored once.
Needs: core. The other product, the ontology, is never imported.
"""
