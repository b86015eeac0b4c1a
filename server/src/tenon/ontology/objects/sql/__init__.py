"""SQL: a query as one statement that returns one JSON value.

Owns: the compiler, its conditions, aggregations, names and rendered values, and the plan that repeats a statement with other arguments.
Promises: every value is a parameter; every identifier comes from the catalogue and is quoted.
Needs: the slice's `contracts`, `errors` and `limits`.
"""
