"""Names inside a statement: quoted identifiers of our catalogue, fresh aliases, literals that fit a checked grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import count

from tenon.ontology.objects.errors import bad_request
from tenon.ontology.objects.limits import GRAPHQL_ALIAS_LENGTH_MAX
from tenon.ontology.schema.contracts import ObjectType

# GraphQL's Name; property and link names are narrower still.
_OUTPUT = re.compile(r"[_A-Za-z][_0-9A-Za-z]*", re.ASCII)


@dataclass(slots=True)
class Names:
    """The aliases of one statement over one tenant's schema."""

    schema: str
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def alias(self, letter: str) -> str:
        """A fresh alias."""
        return f"{letter}{next(self._numbers)}"

    def table(self, object_type: ObjectType) -> str:
        """An object type's table, qualified and quoted."""
        return f"{identifier(self.schema)}.{identifier(object_type.table)}"


def identifier(name: str) -> str:
    """A quoted identifier."""
    quoted = name.replace('"', '""')
    return f'"{quoted}"'


def output_name(name: str) -> str:
    """A key of the answer as a column name. PostgreSQL would cut a longer one silently."""
    return identifier(_checked(name))


def literal(name: str) -> str:
    """A key of the answer as a text literal."""
    return f"'{_checked(name)}'::text"


def _checked(name: str) -> str:
    if not _OUTPUT.fullmatch(name) or len(name) > GRAPHQL_ALIAS_LENGTH_MAX:
        raise bad_request(name[:64], f"A name in an answer has at most {GRAPHQL_ALIAS_LENGTH_MAX} letters, digits and underscores.")
    return name
