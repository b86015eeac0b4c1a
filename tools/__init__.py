"""Lints, generators and benchmarks: what works on the project, not in it."""
