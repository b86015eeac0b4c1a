"""What exists for a caller, as the document of GET /v1/ontology."""

from __future__ import annotations

import json
from typing import Any

from tenon.kit.lru import LruCache
from tenon.ontology.objects.requests.arguments import allowed_operators
from tenon.ontology.objects.visibility import View, VisibleType
from tenon.ontology.schema.contracts import LinkType, Property, PropertyType

_documents: LruCache[str, bytes] = LruCache(200)


def document(view: View) -> bytes:
    """The catalogue as JSON, remembered by what is visible."""
    return _documents.get(view.key) or _documents.put(view.key, json.dumps(_content(view), ensure_ascii=False).encode())


def _content(view: View) -> dict[str, Any]:
    return {"version": view.ontology.version, "object_types": [_type(kind) for kind in view.types.values()]}


def _type(kind: VisibleType) -> dict[str, Any]:
    return {
        "name": kind.name,
        "plural": kind.type.plural,
        "description": kind.type.description,
        "title": kind.type.title if kind.type.title in kind.properties else None,
        "primary_key": list(kind.type.primary_key) if kind.key_properties else None,
        "properties": [_property(item) for item in kind.properties.values()],
        "links": [_one(link) for link in kind.ones.values()] + [_many(name, link) for name, link in kind.manys.items()],
    }


def _property(item: Property) -> dict[str, Any]:
    found: dict[str, Any] = {"name": item.name, "type": item.type.value, "required": item.required, "description": item.description}
    found["filter"] = sorted([*allowed_operators(item), "is_null"]) if item.filterable else []
    if item.type is PropertyType.DECIMAL:
        found["scale"] = item.scale
    if item.type is PropertyType.ENUM:
        found["enum"] = list(item.enum)
    if item.value_type:
        found["value_type"] = item.value_type
    if item.markings:
        found["markings"] = sorted(item.markings)
    return found


def _one(link: LinkType) -> dict[str, Any]:
    return {"name": link.name, "to": link.target, "many": False, "via": [ours for ours, _ in link.via], "description": link.description}


def _many(name: str, link: LinkType) -> dict[str, Any]:
    return {"name": name, "to": link.source, "many": True, "inverse_of": link.name, "description": link.description}
