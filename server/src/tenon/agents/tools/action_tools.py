"""Tools that simulate and propose actions, and follow a proposal. There is none that approves, and none will be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from tenon.agents.tools.contracts import Tool, ToolContext
from tenon.agents.tools.errors import invalid_arguments
from tenon.core.context import Context
from tenon.ontology import actions
from tenon.ontology.actions import ActionRequest, State

WATCH_SECONDS_MAX = 25
SIMULATE, PROPOSE = "simulate_", "propose_"
KEY_ARGUMENT = "idempotency_key"
Arguments = Mapping[str, Any]
_PROPOSAL_ID = {"type": "string", "format": "uuid", "description": "The proposal's id."}


def action_tools(permitted: list[dict[str, Any]]) -> list[Tool]:
    """Two tools for each action type that the caller may propose, as `actions.list_permitted` describes it."""
    return [tool for action in permitted for tool in (_simulate(action), _propose(action))]


def named(name: str) -> Tool | None:
    """The tool that a name would call, without asking whether its action exists: its service refuses what does not, or may not."""
    for prefix, make in ((SIMULATE, _simulate), (PROPOSE, _propose)):
        if name.startswith(prefix):
            return make({"name": name.removeprefix(prefix), "description": "", "parameters": {"type": "object", "properties": {}}})
    return None


def proposal_tools() -> list[Tool]:
    """Reading and waiting for a proposal."""
    return [
        Tool("get_proposal", "A proposal: its state, its diff and who decided what.", _closed({"id": _PROPOSAL_ID}, ["id"]), _get),
        Tool(
            "watch_proposal",
            f"Wait, at most {WATCH_SECONDS_MAX} seconds, until a proposal leaves a state; then the proposal as it is. Call again to wait on.",
            _closed(
                {
                    "id": _PROPOSAL_ID,
                    "known_state": {"enum": [state.value for state in State], "description": "The state you know of."},
                    "wait_seconds": {"type": "number", "minimum": 0, "maximum": WATCH_SECONDS_MAX},
                },
                ["id", "known_state"],
            ),
            _watch,
        ),
    ]


def _simulate(action: Mapping[str, Any]) -> Tool:
    name = action["name"]

    async def run(tool_context: ToolContext, ctx: Context, arguments: Arguments) -> dict[str, Any]:
        return await actions.simulate(tool_context.database, ctx, ActionRequest(name, dict(arguments)))

    text = f"See the exact diff that {name} would make now, and whether it needs approval. Changes nothing. {action['description']}"
    return Tool(f"{SIMULATE}{name}", text.strip(), action["parameters"], run, checked_here=False)


def _propose(action: Mapping[str, Any]) -> Tool:
    name = action["name"]

    async def run(tool_context: ToolContext, ctx: Context, arguments: Arguments) -> dict[str, Any]:
        key = arguments.get(KEY_ARGUMENT, str(uuid4()))
        if not isinstance(key, str):
            raise invalid_arguments("An idempotency key is text.", KEY_ARGUMENT)
        parameters = {argument: value for argument, value in arguments.items() if argument != KEY_ARGUMENT}
        _, proposal, _ = await actions.propose(tool_context.database, ctx, ActionRequest(name, parameters), key=key)
        return proposal

    schema = dict(action["parameters"])
    described = {
        "type": "string",
        "maxLength": 255,
        "description": "Repeat a call with the same key to get its answer, not a second proposal.",
    }
    schema["properties"] = {**schema["properties"], KEY_ARGUMENT: described}
    text = f"Propose {name}: it is simulated, and executed once approved, by somebody else where its rule says so. {action['description']}"
    return Tool(f"{PROPOSE}{name}", text.strip(), schema, run, read_only=False, checked_here=False)


async def _get(tool_context: ToolContext, ctx: Context, arguments: Arguments) -> dict[str, Any]:
    return await actions.get(tool_context.database, ctx, _id(arguments))


async def _watch(tool_context: ToolContext, ctx: Context, arguments: Arguments) -> dict[str, Any]:
    known, seconds = State(arguments["known_state"]), float(arguments.get("wait_seconds", WATCH_SECONDS_MAX))
    return await actions.watch(tool_context.database, ctx, _id(arguments), known=known, wait_seconds=seconds)


def _id(arguments: Arguments) -> UUID:
    try:
        return UUID(arguments["id"])
    except ValueError:
        raise invalid_arguments("A proposal's id is a UUID.", "id") from None


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
