"""Objects: reading a tenant's business data.

Owns: the query (contracts), the compiler that makes one SQL statement of it, plans, what of an ontology exists for a caller, the REST and
GraphQL doors. Promises: every read is exactly one statement under the tenant's role; values are only ever parameters; what a caller may not
see is unknown in fields, filters, orders, groups and links; depth, pages, fields, size and time are bounded. Needs: schema, policy, the fast
lane.
"""

from tenon.ontology.objects.service import Objects

__all__ = ["Objects"]
