"""Which tools a caller has, and calling one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from tenon.agents.tools import action_tools, object_tools
from tenon.agents.tools.contracts import Tool, ToolContext
from tenon.agents.tools.errors import invalid_arguments, session_needed, unknown_tool
from tenon.agents.tools.result_truncation import truncated_to_fit
from tenon.core.context import Context
from tenon.core.policy import Action, Resource, is_permitted
from tenon.kit.errors import NotFound
from tenon.kit.lru import LruCache
from tenon.ontology import actions

VIEWS_MAX = 200
MESSAGE_LENGTH_MAX = 300


class Toolbox:
    """The tools of one process; reading tools are remembered by what is visible, never by who asked."""

    def __init__(self, tool_context: ToolContext) -> None:
        self._tool_context = tool_context
        self._reading: LruCache[str, dict[str, Tool]] = LruCache(VIEWS_MAX)

    async def tools(self, ctx: Context) -> list[Tool]:
        """Every tool this caller has. Raises Forbidden `session_needed` for an agent's base key."""
        _check_session(ctx)
        try:
            available = list((await self._reading_tools(ctx)).values())
            if is_permitted(ctx, Action.PROPOSE, Resource("Tenant", str(ctx.tenant))):
                available += action_tools.action_tools(await actions.list_permitted(self._tool_context.database, ctx))
        except NotFound as error:
            if error.code != "no_ontology":
                raise
            return []  # a tenant that has described nothing yet
        return available + action_tools.proposal_tools()

    async def call(self, ctx: Context, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run a tool. Raises every refusal of the services behind, and what errors.py lists."""
        _check_session(ctx)
        tool = await self._tool(ctx, name)
        if tool.checked_here:
            _check_arguments(tool, arguments)
        return truncated_to_fit(await tool.run(self._tool_context, ctx, arguments))

    async def _tool(self, ctx: Context, name: str) -> Tool:
        tool = action_tools.named(name) or next((each for each in action_tools.proposal_tools() if each.name == name), None)
        tool = tool or (await self._reading_tools(ctx)).get(name)
        if tool is None:
            raise unknown_tool(name)
        return tool

    async def _reading_tools(self, ctx: Context) -> dict[str, Tool]:
        view = await self._tool_context.objects.view(ctx)
        available = self._reading.get(view.key)
        if available is None:
            available = self._reading.put(view.key, {tool.name: tool for tool in object_tools.tools(view)})
        return available


def _check_session(ctx: Context) -> None:
    if ctx.opens_sessions_only:
        raise session_needed()


def _check_arguments(tool: Tool, arguments: Mapping[str, Any]) -> None:
    """The SDK does not hold arguments against the schema; what reaches a service must fit it."""
    error = best_match(Draft202012Validator(tool.input_schema).iter_errors(dict(arguments)))
    if error is not None:
        path = ".".join(str(part) for part in error.absolute_path)
        raise invalid_arguments(error.message[:MESSAGE_LENGTH_MAX], path)
