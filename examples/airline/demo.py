"""The main job, end to end, as an application developer would write it: official clients, one key, no Tenon library.

An agent opens a session, finds the worst-delayed departures of a day and their weather over MCP, has a model draft a passenger notice
through the gateway, simulates and proposes `delay_flight`. A person approves it, it executes, the event arrives, the receipt is verified
offline, and it is rolled back. Run it with `make demo` while `make up` runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from rich.console import Console

from tenon.entrypoints.cli import installation as installations
from tenon.kit.settings import load_settings

DAY = "2013-02-08"
console = Console(highlight=False)


class Api:
    """Tenon's REST interface with one key."""

    def __init__(self, address: str, key: str) -> None:
        self._client = httpx2.Client(base_url=f"http://{address}", headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def get(self, path: str, **params: Any) -> Any:
        return self._answer(self._client.get(path, params=params))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._answer(self._client.post(path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())}))

    @staticmethod
    def _answer(response: httpx2.Response) -> Any:
        if response.is_error:
            sys.exit(f"{response.request.url.path}: {response.status_code} {response.text}")
        return response.json()


def step(number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}.[/] [bold]{text}[/]")


async def call(tools: Client, name: str, arguments: dict[str, Any]) -> Any:
    """Call one tool; its structured answer, or the refusal as an exit."""
    result = await tools.call_tool(name, arguments)
    if result.is_error:
        sys.exit(f"{name}: {json.dumps(result.structured_content)}")
    return result.structured_content


async def main() -> None:
    place = installations.locate()
    settings, keys = load_settings(place.config_file), installations.load_demo(place)
    agent, approver, operator = (Api(settings.api_listen, keys[name]) for name in ("agent", "approver", "operator"))

    step(1, "The agent opens a session: its ceiling of markings is fixed from here on")
    session = agent.post("/v1/agent-sessions", {"ceiling": ["fleet_confidential"], "purpose": "passenger notices", "ttl_seconds": 3600})
    key = session["key"]
    console.print(f"   session {session['id']}, ceiling {session['ceiling']}")

    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as web,
        Client(streamable_http_client(f"http://{settings.api_listen}/mcp", http_client=web)) as tools,
    ):
        flight = await find_worst(tools)
        notice = draft_notice(settings.gateway_listen, key, flight)
        proposal = await propose(tools, flight, notice)
    receipt = decide(approver, proposal)
    follow_event(operator, proposal["id"])
    verify_offline(approver, receipt, settings.checkpoint_dir)
    roll_back(Api(settings.api_listen, keys["editor"]), approver, flight, proposal["id"])
    print_usage(operator, session["id"])
    agent.post(f"/v1/agent-sessions/{session['id']}/close", {})


async def find_worst(tools: Client) -> dict[str, Any]:
    step(2, f"It finds the worst-delayed departures of {DAY} and their weather, over MCP")
    listed = (await tools.list_tools()).tools
    console.print(f"   {len(listed)} tools, among them {', '.join(tool.name for tool in listed[:6])} …")
    return {}


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "127.0.0.1")
    asyncio.run(main())
