"""The limits of an ontology document, and the names it may not use. Documented in docs/reference; every refusal quotes the number."""

from __future__ import annotations

LANGUAGE_VERSION = 1
OBJECT_TYPES_MAX = 500
PROPERTIES_MAX = 300  # a type; PostgreSQL allows 1,600 columns for a table's whole life, dropped ones included
LINKS_MAX = 1_000
VALUE_TYPES_MAX = 200
MARKINGS_MAX = 64
KEY_PROPERTIES_MAX = 4
INDEXES_MAX = 16  # a type, on several properties
ENUM_VALUES_MAX = 64
ENUM_VALUE_LENGTH_MAX = 64
PATTERN_LENGTH_MAX = 200
TEXT_LENGTH_MAX = 100_000
INDEX_TEXT_LENGTH_MAX = 512  # characters of all texts in one index: 4 bytes each, an index row holds 2,704
DECIMAL_SCALE_MAX = 9
NUMBER_MAX = 2**53  # bounds of a range: every integer up to here is exact in JSON and in a float


# Words that our own fields, GraphQL or CEL already use; a property or link of this name would be ambiguous in some protocol.
RESERVED_MEMBERS = frozenset(
    (
        "id",
        "version",
        "type",
        "typename",
        "and",
        "or",
        "not",
        "in",
        "as",
        "null",
        "true",
        "false",
        "is",
        "has",
        "where",
        "filter",
        "order",
        "order_by",
        "sort",
        "first",
        "last",
        "after",
        "before",
        "limit",
        "cursor",
        "page",
        "node",
        "nodes",
        "edges",
        "total",
        "count",
        "aggregate",
        "group_by",
        "links",
        "properties",
        "self",
        "now",
        "actor",
        "params",
        "parameters",
    )
)
RESERVED_TYPES = RESERVED_MEMBERS | frozenset(
    (
        "query",
        "mutation",
        "subscription",
        "schema",
        "object",
        "objects",
        "object_type",
        "object_types",
        "link",
        "action",
        "actions",
        "proposal",
        "proposals",
        "event",
        "events",
        "audit",
        "usage",
        "models",
        "sessions",
        "tools",
        "string",
        "int",
        "integer",
        "float",
        "boolean",
        "decimal",
        "date",
        "timestamp",
        "uuid",
        "enum",
        "text",
        "page_info",
    )
)
