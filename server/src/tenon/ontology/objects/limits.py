"""What one read may ask for. Documented in docs/reference; every refusal quotes the number."""

from __future__ import annotations

DEPTH_MAX = 8  # objects inside objects
PAGE_MAX = 1_000
PAGE_DEFAULT = 50
NESTED_PAGE_MAX = 100
NESTED_PAGE_DEFAULT = 20
GROUPS_MAX = 1_000
GROUPS_DEFAULT = 100
FIELDS_MAX = 300  # of all objects in one read
OBJECTS_MAX = 50_000  # that a read could return: the sum over its pages of the product of page sizes down to each
CONDITIONS_MAX = 100
IN_MAX = 1_000
SORT_KEYS_MAX = 4
GROUP_KEYS_MAX = 4
ROOTS_MAX = 20
TEXT_BYTES_MAX = 100_000  # of one value in a filter
ANSWER_BYTES_MAX = 8_000_000
TIMEOUT_MS = 5_000
GRAPHQL_BYTES_MAX = 256_000
GRAPHQL_TOKENS_MAX = 2_000
GRAPHQL_FIELDS_MAX = 300  # nodes in the text, before fragments are spread: validation is quadratic in repeated ones
GRAPHQL_ALIASES_MAX = 60
GRAPHQL_ALIAS_LENGTH_MAX = 63  # PostgreSQL's longest column name
URL_QUERY_BYTES_MAX = 16_000
