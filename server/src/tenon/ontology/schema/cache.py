"""Ontologies remembered in this process by (tenant, version); published versions never change, so nothing is ever stale."""

from __future__ import annotations

from threading import Lock
from uuid import UUID

from tenon.kit.lru import LruCache
from tenon.ontology.schema.contracts import Ontology

VERSIONS_MAX = 500
_known: LruCache[tuple[UUID, int], Ontology] = LruCache(VERSIONS_MAX)
_lock = Lock()


def remembered(tenant: UUID, version: int) -> Ontology | None:
    """The version if it was read before."""
    with _lock:
        return _known.get((tenant, version))


def remember(ontology: Ontology) -> Ontology:
    """Keep a version; the least recently used goes when there are too many."""
    with _lock:
        key = (ontology.tenant, ontology.version)
        return _known.get(key) or _known.put(key, ontology)
