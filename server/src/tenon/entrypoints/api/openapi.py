"""OpenAPI metadata of the plain ASGI read routes, which FastAPI does not see. docs/reference/reads.md has the whole story."""

from __future__ import annotations

from typing import Any

_TYPE = {"name": "type", "in": "path", "required": True, "schema": {"type": "string"}, "description": "An object type's name."}
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
_LINK = {"name": "link", "in": "path", "required": True, "schema": {"type": "string"}, "description": "A link's name, either way."}
_FIELDS = {"name": "fields", "in": "query", "schema": {"type": "string"}, "description": "Comma-separated properties; all when absent."}
_FILTER = {
    "name": "filter",
    "in": "query",
    "schema": {"type": "string"},
    "description": "A JSON filter; `property.operator=value` works too.",
}
_SORT = {"name": "sort", "in": "query", "schema": {"type": "string"}, "description": "Comma-separated properties; a minus descends."}
_FIRST = {"name": "first", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}}
_AFTER = {"name": "after", "in": "query", "schema": {"type": "string"}, "description": "The `next` of the page before."}
_GROUP_BY = {"name": "group_by", "in": "query", "schema": {"type": "string"}, "description": "Comma-separated properties."}
_MEASURES = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("sum", "avg", "min", "max")]

# path -> (operation id, summary, parameters)
READS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "/v1/ontology": ("get_ontology", "The types, properties and links that exist for the caller.", []),
    "/v1/objects/{type}": ("list_objects", "Objects of a type, a page at a time.", [_TYPE, _FILTER, _SORT, _FIRST, _AFTER, _FIELDS]),
    "/v1/objects/{type}/by-key": ("get_object_by_key", "One object by its primary key: one query parameter a key property.", [_TYPE, _FIELDS]),
    "/v1/objects/{type}/aggregate": ("aggregate_objects", "Counts and measures by group.", [_TYPE, _FILTER, _GROUP_BY, *_MEASURES, _SORT, _FIRST]),
    "/v1/objects/{type}/{id}": ("get_object", "One object.", [_TYPE, _ID, _FIELDS]),
    "/v1/objects/{type}/{id}/{link}": (
        "follow_link", "The object or objects at a link's other end.", [_TYPE, _ID, _LINK, _FILTER, _SORT, _FIRST, _AFTER, _FIELDS]
    ),
}  # fmt: skip


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "code", "message", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "`urn:tenon:error:` and the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable; programs decide by it."},
        "message": {"type": "string", "description": "A sentence for people."},
        "path": {"type": "string", "description": "The field that is wrong."},
        "repair": {"type": "string", "description": "What to do about it."},
        "details": {"type": "object"},
        "request_id": {"type": "string"},
    },
}


def with_reads(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the read routes added."""
    for path, (operation, summary, parameters) in READS.items():
        answers = {"200": {"description": "JSON, as the database made it."}, "404": {"description": "It does not exist for the caller."}}
        document["paths"][path] = {
            "get": {"operationId": operation, "summary": summary, "tags": ["objects"], "parameters": parameters, "responses": answers}
        }
    body = {
        "type": "object",
        "required": ["query"],
        "properties": {"query": {"type": "string"}, "operationName": {"type": "string"}, "variables": {"type": "object"}},
    }
    document["paths"]["/v1/graphql"] = {
        "post": {
            "operationId": "graphql",
            "summary": "A GraphQL query: one SQL statement.",
            "tags": ["objects"],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {"200": {"description": "data, and errors with a stable `extensions.code`"}},
        }
    }
    return _with_access_and_problems(document)


def _with_access_and_problems(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the API key that every route needs, and the one shape that every error has."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "api_key": {"type": "http", "scheme": "bearer", "description": "An API key (`tnn_…`), or a token of an issuer the tenant trusts."}
    }
    document["security"] = [{"api_key": []}]
    schemas = components.setdefault("schemas", {})
    # FastAPI documents its own validation error, which the API never sends: it answers 400 with a problem.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {"description": "Refused or failed; `code` says why.", "content": content}
    return document
