"""Schema: what a tenant's business data is, described in one document, and the tables that hold it.

Owns: the ontology language, the versioned catalogue, the DDL of object tables and their history, objects' ids. Promises: apply is atomic
(tables and catalogue in one transaction), and repeating it changes nothing. A published version never changes; a physical name is never
used twice. Needs: audit, events, policy; login `migrate` for plan and apply.

`documents` (from text to a definition) → `tables` (physical names, DDL, the plan of changes).
"""

from tenon.ontology.schema.contracts import Dangling, LinkType, ObjectType, Ontology, Problem, Property, PropertyType
from tenon.ontology.schema.current_ontologies import Ontologies
from tenon.ontology.schema.object_ids import object_id

__all__ = ["Dangling", "LinkType", "ObjectType", "Ontologies", "Ontology", "Problem", "Property", "PropertyType", "object_id"]
