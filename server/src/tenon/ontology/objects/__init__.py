"""Objects: reading a tenant's business data.

Owns: the query (`contracts`), what of an ontology exists for a caller (`visibility`), requests and their limits, the compiler from a query to
SQL, the REST and GraphQL handlers. Promises: every read is exactly one statement under the tenant's role. Values are
only ever parameters. What a caller may not see is unknown in fields, filters, orders, groups and links. Depth, pages, fields, size and time
are bounded. Needs: schema, policy, the fast lane.

`requests` (a caller's words as a query) → `sql` (a query as a statement); `graphql_language` (documents) stands on both.
"""

from tenon.ontology.objects.service import Objects

__all__ = ["Objects"]
