"""Ontologies remembered in this process by (tenant, version); published versions never change, so nothing is ever stale."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from uuid import UUID

from tenon.ontology.schema.contracts import Ontology

VERSIONS_MAX = 500
_known: OrderedDict[tuple[UUID, int], Ontology] = OrderedDict()
_lock = Lock()


def remembered(tenant: UUID, version: int) -> Ontology | None:
    """The version if it was read before."""
    with _lock:
        found = _known.get((tenant, version))
        if found is not None:
            _known.move_to_end((tenant, version))
        return found


def remember(ontology: Ontology) -> Ontology:
    """Keep a version; the least recently used goes when there are too many."""
    with _lock:
        kept = _known.setdefault((ontology.tenant, ontology.version), ontology)
        _known.move_to_end((ontology.tenant, ontology.version))
        while len(_known) > VERSIONS_MAX:
            _known.popitem(last=False)
        return kept
