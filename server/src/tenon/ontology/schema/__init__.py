"""Schema: what a tenant's business data is, said in one document, and the tables that hold it.

Owns: the ontology language, the versioned catalogue, the DDL of object tables and their history, objects' ids. Promises: apply is atomic
(tables and catalogue in one transaction), repeating it changes nothing, published versions never change, physical names are never given
twice. Needs: audit, events, policy; login `migrate` for plan and apply.
"""

from tenon.ontology.schema.contracts import Dangling, LinkType, ObjectType, Ontology, Problem, Property, PropertyType
from tenon.ontology.schema.current_ontologies import Ontologies
from tenon.ontology.schema.object_ids import object_id

__all__ = ["Dangling", "LinkType", "ObjectType", "Ontologies", "Ontology", "Problem", "Property", "PropertyType", "object_id"]
