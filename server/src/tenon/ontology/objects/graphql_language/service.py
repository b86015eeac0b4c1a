"""GraphQL reads: from a request's text and variables to the answer's bytes, with what was made before remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import GraphQLError, execute_sync, get_variable_values

from tenon.core.context import Context
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.lru import LruCache
from tenon.ontology.objects.graphql_language import schema
from tenon.ontology.objects.graphql_language.documents import Document, Documents, InvalidDocument
from tenon.ontology.objects.graphql_language.operations import read_operation
from tenon.ontology.objects.graphql_language.schema import ApiSchema
from tenon.ontology.objects.service import Objects
from tenon.ontology.objects.sql.compiler import compile_roots
from tenon.ontology.objects.sql.plans import Plan
from tenon.ontology.objects.visibility import View

SCHEMAS_MAX = 64  # each 2 MB for a hundred object types
INTROSPECTIONS_MAX = 64


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    """One request. `operation` picks one of several in the text."""

    text: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    operation: str | None = None


class GraphQL:
    """Reads through GraphQL for one process."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._schemas: LruCache[str, ApiSchema] = LruCache(SCHEMAS_MAX)
        self._documents = Documents()
        self._introspections: LruCache[tuple[Document, str], bytes] = LruCache(INTROSPECTIONS_MAX)

    async def execute(self, ctx: Context, request: GraphQLRequest) -> bytes:
        """`{"data": {…}}` for a whole operation, in one statement. Raises InvalidDocument, FieldRefused, TenonError."""
        view = await self._objects.view(ctx)
        document = self._document(view, request)
        if document.is_introspection:
            return await self._introspect(document, request)

        def make(current: View) -> Plan:
            known = document if current.key == view.key else self._document(current, request)
            _check_variables(known, request)
            return compile_roots(current.ontology.schema, read_operation(current, known, request.variables))

        shape = (document, document.shape(request.variables))
        return await self._objects.run(ctx, view, shape, request.variables, make)

    def schema(self, view: View) -> ApiSchema:
        """The schema of what exists for a caller."""
        return self._schemas.get(view.key) or self._schemas.put(view.key, schema.build(view))

    def _document(self, view: View, request: GraphQLRequest) -> Document:
        known = self._documents.get(request.text, request.operation, view.key)
        return known or self._documents.read(request.text, request.operation, view.key, self.schema(view))

    async def _introspect(self, document: Document, request: GraphQLRequest) -> bytes:
        key = (document, json.dumps(request.variables, sort_keys=True))
        known = self._introspections.get(key)
        if known is None:
            # A quarter of a second for a hundred types: in a thread, so that reads go on.
            known = self._introspections.put(key, await asyncio.to_thread(_execute_introspection, document, request))
        return known


def _execute_introspection(document: Document, request: GraphQLRequest) -> bytes:
    result = execute_sync(document.api.schema, document.ast, variable_values=dict(request.variables), operation_name=request.operation)
    if result.errors:
        raise InvalidDocument(list(result.errors))
    return json.dumps({"data": result.data}, ensure_ascii=False).encode()


def _check_variables(document: Document, request: GraphQLRequest) -> None:
    """Types, nulls and unknown fields of the variables; plain values are checked again whenever the plan is used."""
    try:
        checked = get_variable_values(
            document.api.schema, document.operation.variable_definitions or (), dict(request.variables), max_errors=5
        )
    except (RecursionError, OverflowError):
        raise Invalid(ErrorCode.INVALID_VARIABLES, "The variables are nested too deep.", path="variables") from None
    if isinstance(checked, list):
        raise InvalidDocument([error for error in checked if isinstance(error, GraphQLError)])
