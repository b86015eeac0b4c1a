"""Tools that read objects.

Up to TYPED_TYPES_MAX object types each have their own tools, whose schemas name every property: a model then makes fewer mistakes. Beyond
that there are the same four tools once, with the type as an argument: hundreds of tools fill a model's context and are confused with each
other. Either way `list_object_types` describes what each type has.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tenon.agents.tools import schemas
from tenon.agents.tools.contracts import Tool, ToolContext
from tenon.agents.tools.errors import invalid_arguments
from tenon.core.context import Context
from tenon.ontology.objects.visibility import View, VisibleType

TYPED_TYPES_MAX = 12
PAGE_DEFAULT = 20
Arguments = Mapping[str, Any]


def tools(view: View) -> list[Tool]:
    """Every reading tool for what this view shows."""
    kinds = dict(view.types)
    tools_of_view = [_list_types()]
    if not kinds:
        return tools_of_view
    if len(kinds) <= TYPED_TYPES_MAX:
        tools_of_view += [tool for kind in kinds.values() for tool in _of_type(kind)]
    else:
        tools_of_view += _of_any_type(kinds)
    if any(kind.ones or kind.manys for kind in kinds.values()):
        tools_of_view.append(_follow(kinds))
    return tools_of_view


def _list_types() -> Tool:
    async def run(tool_context: ToolContext, ctx: Context, arguments: Arguments) -> bytes:
        return await tool_context.objects.catalogue(ctx)

    text = "The object types there are, with their properties, keys and links. Call this first."
    return Tool("list_object_types", text, {"type": "object", "properties": {}, "additionalProperties": False}, run)


def _of_type(kind: VisibleType) -> list[Tool]:
    plural, name = kind.type.plural, kind.name
    about = f" {kind.type.description}" if kind.type.description else ""
    return [
        Tool(f"search_{plural}", f"Find {plural} by a filter, sorted, a page at a time.{about}", schemas.search_schema(kind),
             partial(_search, type_name=name)),
        Tool(f"get_{name}", f"One {name} by its id{' or key' if kind.key_properties else ''}.{about}", schemas.get_schema(kind),
             partial(_get, type_name=name)),
        Tool(f"aggregate_{plural}", f"Count {plural}, and sum, average, minimum and maximum of their properties, by group.",
             schemas.aggregate_schema(kind), partial(_aggregate, type_name=name)),
    ]  # fmt: skip


def _of_any_type(kinds: dict[str, VisibleType]) -> list[Tool]:
    any_kind = next((kind for kind in kinds.values() if kind.key_properties), next(iter(kinds.values())))
    generic_tools = (
        ("search_objects", "Find objects of a type by a filter, sorted, a page at a time.", schemas.search_schema, _search),
        ("get_object", "One object of a type by its id or key.", schemas.get_schema, _get),
        (
            "aggregate_objects",
            "Count objects of a type, and sum, average, minimum and maximum, by group.",
            schemas.aggregate_schema,
            _aggregate,
        ),
    )
    return [
        Tool(name, text, schemas.of_any_type(kinds, schema(any_kind)), partial(_by_type, run)) for name, text, schema, run in generic_tools
    ]


def _follow(kinds: dict[str, VisibleType]) -> Tool:
    text = "The object that a link of an object leads to, or a page of the objects that link to it."
    return Tool("follow_link", text, schemas.follow_schema(kinds), _follow_link)


async def _by_type(run: Any, tool_context: ToolContext, ctx: Context, arguments: Arguments) -> bytes:
    rest = {name: value for name, value in arguments.items() if name != "type"}
    answer: bytes = await run(tool_context, ctx, rest, type_name=arguments["type"])
    return answer


async def _search(tool_context: ToolContext, ctx: Context, arguments: Arguments, *, type_name: str) -> bytes:
    return await tool_context.objects.list(
        ctx, type_name, filter=arguments.get("filter"), sort=arguments.get("sort", ()), first=arguments.get("first", PAGE_DEFAULT),
        after=arguments.get("after"), fields=arguments.get("fields"),
    )  # fmt: skip


async def _get(tool_context: ToolContext, ctx: Context, arguments: Arguments, *, type_name: str) -> bytes:
    if ("id" in arguments) == ("key" in arguments):
        raise invalid_arguments("Give either the id or the key.", "id")
    if "id" in arguments:
        return await tool_context.objects.get(ctx, type_name, arguments["id"], fields=arguments.get("fields"))
    return await tool_context.objects.get_by_key(ctx, type_name, arguments["key"], fields=arguments.get("fields"))


async def _aggregate(tool_context: ToolContext, ctx: Context, arguments: Arguments, *, type_name: str) -> bytes:
    return await tool_context.objects.aggregate(
        ctx, type_name, filter=arguments.get("filter"), group_by=arguments.get("group_by", ()), measures=arguments.get("measures"),
        sort=arguments.get("sort", ()), first=arguments.get("first"),
    )  # fmt: skip


async def _follow_link(tool_context: ToolContext, ctx: Context, arguments: Arguments) -> bytes:
    kind = await tool_context.objects.type(ctx, arguments["type"])
    one = arguments["link"] in kind.ones
    return await tool_context.objects.follow(
        ctx, kind.name, arguments["id"], arguments["link"], filter=arguments.get("filter"), sort=arguments.get("sort", ()),
        first=arguments.get("first", None if one else PAGE_DEFAULT), after=arguments.get("after"), fields=arguments.get("fields"),
    )  # fmt: skip
