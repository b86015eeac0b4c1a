"""GraphQL: documents parsed, validated and read as queries.

Owns: the schema that a caller sees, the cache of documents, and the walk from an operation to the query's types.
Promises: a document is bounded before it is parsed; object reads never pass through graphql-core's executor.
Needs: `requests` for arguments, `sql` for plans, the slice's `service` for visibility and the fast lane.
"""
