"""Callers with tokens of other issuers instead of API keys.

Owns: trusted issuers, their key sets, and the verification of tokens. Promises: a token is accepted only if exactly one issuer and one
credential match it. Needs: the slice's repository; the network, through a guard, for key sets.
"""
