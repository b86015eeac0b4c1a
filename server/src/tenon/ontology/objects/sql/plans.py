"""A plan: one SQL statement and where its parameters stand in the arguments of each request that uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tenon.ontology.objects.contracts import Path, Value

# What the statement answers instead of a body beyond the limit; never JSON.
TOO_LARGE = b"!"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A constant, or a path into the request's arguments and how the value found there is checked and encoded."""

    constant: bytes | None = None
    path: Path | None = None
    encode: Callable[[Any], bytes] | None = None

    def bind(self, arguments: Any) -> bytes | None:
        """The parameter for these arguments; raises Invalid."""
        if self.path is None or self.encode is None:
            return self.constant
        raw = arguments
        for step in self.path:
            raw = raw[step]
        return self.encode(raw)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send. `sql` holds names of our own catalogue, numbers and output names that fit a checked grammar; never a value."""

    sql: str
    parameters: tuple[Parameter, ...]

    def bind(self, arguments: Any) -> list[bytes | None]:
        """The parameters for one request; raises Invalid for a value that is not of its property's type."""
        return [parameter.bind(arguments) for parameter in self.parameters]


@dataclass(slots=True)
class Parameters:
    """The growing parameter list of a statement that is being written."""

    items: list[Parameter] = field(default_factory=list)

    def add(self, value: Value, sql_type: str, encode: Callable[[Any], bytes]) -> str:
        """Add a value; the SQL that stands for it. The value is checked at once, also when it will be bound again later."""
        encoded = encode(value.raw)
        self.items.append(Parameter(constant=encoded) if value.path is None else Parameter(path=value.path, encode=encode))
        return f"${len(self.items)}::{sql_type}"
