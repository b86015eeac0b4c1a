"""What a tool is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tenon.core.context import Context
from tenon.kit.database import Database
from tenon.ontology.objects import Objects


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What tools work with: the reads lane, and the login that requests run on."""

    objects: Objects
    database: Database


# What a call gets and gives: arguments that fit the schema; a JSON object, as bytes when the database made it.
Run = Callable[[ToolContext, Context, Mapping[str, Any]], Awaitable[bytes | dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `checked_here` False: the service behind it checks the arguments and says what is wrong with them."""

    name: str
    description: str
    input_schema: dict[str, Any]
    run: Run
    read_only: bool = True
    checked_here: bool = True
