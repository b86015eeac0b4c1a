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
    return {"version": view.ontology.version, "object_types": [_type(object_type) for object_type in view.types.values()]}


def _type(object_type: VisibleType) -> dict[str, Any]:
    return {
        "name": object_type.name,
        "plural": object_type.type.plural,
        "description": object_type.type.description,
        "title": object_type.type.title if object_type.type.title in object_type.properties else None,
        "primary_key": list(object_type.type.primary_key) if object_type.key_properties else None,
        "properties": [_property(item) for item in object_type.properties.values()],
        "links": [_one(link) for link in object_type.ones.values()] + [_many(name, link) for name, link in object_type.manys.items()],
    }


def _property(item: Property) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": item.name, "type": item.type.value, "required": item.required, "description": item.description}
    entry["filter"] = sorted([*allowed_operators(item), "is_null"]) if item.filterable else []
    if item.type is PropertyType.DECIMAL:
        entry["scale"] = item.scale
    if item.type is PropertyType.ENUM:
        entry["enum"] = list(item.enum)
    if item.value_type:
        entry["value_type"] = item.value_type
    if item.markings:
        entry["markings"] = sorted(item.markings)
    return entry


def _one(link: LinkType) -> dict[str, Any]:
    return {"name": link.name, "to": link.target, "many": False, "via": [ours for ours, _ in link.via], "description": link.description}


def _many(name: str, link: LinkType) -> dict[str, Any]:
    return {"name": name, "to": link.source, "many": True, "inverse_of": link.name, "description": link.description}
