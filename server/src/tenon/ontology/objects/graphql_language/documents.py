"""GraphQL texts: bounded, parsed, validated and remembered, so that a repeated text costs one look-up.

Parsing and validating a nested query takes 3 ms, thirty times the walk over it (reference/libraries-python.md); the raw text is the key.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    TypeNode,
    parse,
    recommended_rules,
    specified_rules,
    type_from_ast,
    validate,
)

from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.lru import LruCache
from tenon.ontology.objects import limits
from tenon.ontology.objects.graphql_language.schema import CURSOR, ApiSchema
from tenon.ontology.objects.requests.signatures import check_nesting, cursor_signature

_RULES = tuple(dict.fromkeys((*specified_rules, *recommended_rules)))
_ERRORS_MAX = 20
_NESTING_MAX = 60  # of selection sets in the text; objects have their own, lower limit
_TEXT_REMEMBERED_MAX = 16_000  # characters; longer texts are parsed each time
_STRUCTURAL_SCALARS = frozenset({"Int", "Boolean"})  # the SQL depends on their values: `first`, `is_null`, @include


class InvalidDocument(Exception):
    """The text is not GraphQL, or does not fit the schema."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = errors


@dataclass(frozen=True, eq=False)
class Document:
    """One operation of a valid text. Equal by identity: it stands for (text, operation, schema)."""

    api: ApiSchema
    ast: DocumentNode
    operation: OperationDefinitionNode
    fragments: Mapping[str, FragmentDefinitionNode]
    variables: Mapping[str, GraphQLInputType]
    is_introspection: bool

    def shape(self, variables: Mapping[str, Any]) -> Hashable:
        """The shape of the variables: what the SQL depends on."""
        return tuple([(name, _signature(kind, variables[name])) for name, kind in self.variables.items() if name in variables])


class Documents:
    """Valid texts, by their text."""

    def __init__(self, most: int = 1_000) -> None:
        self._known: LruCache[tuple[str, str | None, str], Document] = LruCache(most)

    def get(self, text: str, operation_name: str | None, schema_key: str) -> Document | None:
        """A document that was read before."""
        return self._known.get((text, operation_name, schema_key))

    def read(self, text: str, operation_name: str | None, schema_key: str, api: ApiSchema) -> Document:
        """Parse and validate. Raises InvalidDocument, Invalid, Invalid."""
        document = _read(text, operation_name, api)
        return document if len(text) > _TEXT_REMEMBERED_MAX else self._known.put((text, operation_name, schema_key), document)


def _read(text: str, operation_name: str | None, api: ApiSchema) -> Document:
    try:
        ast = parse(text, max_tokens=limits.GRAPHQL_TOKENS_MAX, allow_empty_selection_sets=False, max_comments=500)
    except GraphQLError as error:
        raise InvalidDocument([error]) from None
    _check_size(ast)
    operation = _operation(ast, operation_name)
    if operation.operation is not OperationType.QUERY:
        raise Invalid(ErrorCode.ONLY_QUERIES, "GraphQL reads here. Changes are made by actions: see POST /v1/proposals.", path="query")
    errors = validate(api.schema, ast, _RULES, max_errors=_ERRORS_MAX, allow_empty_selection_sets=False)
    if errors:
        raise InvalidDocument(errors)
    fragments = {node.name.value: node for node in ast.definitions if isinstance(node, FragmentDefinitionNode)}
    variables = {node.variable.name.value: _type(api, node.type) for node in operation.variable_definitions or ()}
    return Document(api, ast, operation, fragments, variables, _is_introspection(operation, fragments))


def _check_size(ast: DocumentNode) -> None:
    """Before validation, whose rules are quadratic in repeated fields."""
    fields = aliases = 0
    for definition in ast.definitions:
        for field in _fields(getattr(definition, "selection_set", None), 1):
            fields += 1
            aliases += field.alias is not None
    if fields > limits.GRAPHQL_FIELDS_MAX:
        raise Invalid(ErrorCode.TOO_MANY_FIELDS, f"A query has at most {limits.GRAPHQL_FIELDS_MAX} fields in its text.", path="query")
    if aliases > limits.GRAPHQL_ALIASES_MAX:
        raise Invalid(ErrorCode.TOO_MANY_ALIASES, f"A query has at most {limits.GRAPHQL_ALIASES_MAX} aliases.", path="query")


def _fields(selection_set: SelectionSetNode | None, depth: int) -> Iterator[FieldNode]:
    if selection_set is None:
        return
    if depth > _NESTING_MAX:
        raise Invalid(ErrorCode.TOO_DEEP, f"Selections may be nested {_NESTING_MAX} deep.", path="query")
    for node in selection_set.selections:
        if isinstance(node, FieldNode):
            yield node
        if not isinstance(node, FragmentSpreadNode):
            yield from _fields(getattr(node, "selection_set", None), depth + 1)


def _operation(ast: DocumentNode, name: str | None) -> OperationDefinitionNode:
    operations = [node for node in ast.definitions if isinstance(node, OperationDefinitionNode)]
    if name is not None:
        operations = [node for node in operations if node.name and node.name.value == name]
    if len(operations) != 1:
        raise Invalid(ErrorCode.AMBIGUOUS_OPERATION, "Name one operation of the query in `operationName`.", path="operationName")
    return operations[0]


def _is_introspection(operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]) -> bool:
    names = set(_root_names(operation.selection_set, fragments))
    if not names & {"__schema", "__type"}:
        return False
    if names - {"__schema", "__type", "__typename"}:
        raise Invalid(ErrorCode.MIXED_INTROSPECTION, "Ask for the schema and for objects in two requests.", path="query")
    return True


def _root_names(selection_set: SelectionSetNode, fragments: Mapping[str, FragmentDefinitionNode]) -> Iterator[str]:
    for node in selection_set.selections:
        if isinstance(node, FieldNode):
            yield node.name.value
        elif isinstance(node, FragmentSpreadNode):
            yield from _root_names(fragments[node.name.value].selection_set, fragments)
        elif isinstance(node, InlineFragmentNode):
            yield from _root_names(node.selection_set, fragments)


def _type(api: ApiSchema, node: TypeNode) -> GraphQLInputType:
    input_type = type_from_ast(api.schema, node)
    assert input_type is not None  # validated
    return input_type  # type: ignore[return-value]


def _signature(kind: GraphQLInputType, raw: Any, depth: int = 0) -> Hashable:
    """The shape of one variable's value under its type. Raises Invalid when it is nested too deep."""
    check_nesting(depth)
    if isinstance(kind, GraphQLNonNull):
        kind = kind.of_type
    if raw is None:
        return None
    if isinstance(kind, GraphQLList):
        return _list_signature(kind.of_type, raw, depth + 1)
    if isinstance(kind, GraphQLInputObjectType) and isinstance(raw, dict):
        fields = kind.fields
        return tuple([(key, _signature(fields[key].type, item, depth + 1) if key in fields else "unknown") for key, item in raw.items()])
    if kind is CURSOR:
        return cursor_signature(raw)
    if (isinstance(kind, GraphQLEnumType) or getattr(kind, "name", "") in _STRUCTURAL_SCALARS) and isinstance(raw, str | int | float):
        return (type(raw).__name__, raw)
    return type(raw).__name__


def _list_signature(kind: GraphQLInputType, raw: Any, depth: int) -> Hashable:
    if not isinstance(raw, list):
        return _signature(kind, raw, depth)
    parts = [_signature(kind, item, depth) for item in raw]
    inner = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
    if isinstance(inner, GraphQLEnumType | GraphQLInputObjectType):
        return ("list", *parts)
    # A list of plain values is one parameter, however long it is.
    return ("values", frozenset(parts))
