"""The main job, end to end, as an application developer would write it: official clients, one key, no Tenon library.

An agent opens a session, finds the worst-delayed departures of a day and their weather over MCP, has a model draft a passenger notice
through the gateway, simulates and proposes `delay_flight`. A person approves it, it executes, the event arrives, the receipt is verified
offline, and it is rolled back. Run it with `make demo` while `make up` runs.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from openai import OpenAI
from rich.console import Console

from tenon.entrypoints.cli import installation as installations  # where `make up` left the addresses and the demo keys
from tenon.kit.settings import load_settings

DAY_START, DAY_END = "2013-02-08T05:00:00Z", "2013-02-09T05:00:00Z"  # New York's 8 February, the day of the blizzard
MORE_MINUTES = 45
CHANGED = ("departure_delay_minutes", "actual_departure", "passenger_notice")
console = Console(highlight=False, soft_wrap=True)


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


def say(text: str) -> None:
    console.print(f"   {text}", markup=False)


async def call(tools: Client, name: str, arguments: dict[str, Any]) -> Any:
    """Call one tool; its structured answer, or the refusal as an exit."""
    result = await tools.call_tool(name, arguments)
    if result.is_error:
        sys.exit(f"{name}: {json.dumps(result.structured_content)}")
    return result.structured_content


async def find_worst(tools: Client) -> dict[str, Any]:
    """The worst-delayed departures of the day, each with its weather."""
    listed = (await tools.list_tools()).tools
    say(f"{len(listed)} tools: {', '.join(tool.name for tool in listed)}")
    flights = await call(tools, "search_flights", {
        "filter": {"scheduled_departure": {"gte": DAY_START, "lt": DAY_END}, "origin": {"eq": "JFK"}, "status": {"eq": "departed"}},
        "sort": ["-departure_delay_minutes"], "first": 3,
    })  # fmt: skip
    for flight in flights["items"]:
        weather = await call(tools, "follow_link", {"type": "flight", "id": flight["id"], "link": "weather"})
        wind = (weather or {}).get("wind_speed_mph")
        say(f"{flight['carrier']}{flight['flight_number']} to {flight['destination']}: {flight['departure_delay_minutes']} min late,"
            f" wind {'unknown' if wind is None else round(wind)} mph")  # fmt: skip
    return dict(flights["items"][0])


def draft_notice(gateway: str, key: str, flight: dict[str, Any]) -> str:
    """A sentence by the model. What it writes is data: it goes into a proposal that a person reads."""
    client = OpenAI(base_url=f"http://{gateway}/v1", api_key=key)
    number = f"{flight['carrier']}{flight['flight_number']}"
    prompt = f"Please announce politely to passengers in one sentence that flight {number} is delayed by snow."
    answer = client.chat.completions.create(model="smollm2", max_tokens=60, temperature=0, messages=[{"role": "user", "content": prompt}])
    text = (answer.choices[0].message.content or "").strip() or "We are sorry: your flight is delayed by snow."
    say(f"“{text}”")
    usage = answer.usage
    say(f"({usage.prompt_tokens} tokens in, {usage.completion_tokens} out, by the engine's own count)" if usage else "")
    return text


async def propose(tools: Client, flight: dict[str, Any], notice: str) -> dict[str, Any]:
    """Simulate, look, propose."""
    parameters = {"flight": flight["id"], "minutes": flight["departure_delay_minutes"] + MORE_MINUTES, "notice": notice}
    simulated = await call(tools, "simulate_delay_flight", parameters)
    change = simulated["diff"][0]
    for name in sorted(change["after"]):
        say(f"{name}: {change['before'].get(name)!r} → {change['after'][name]!r}")
    proposal = await call(tools, "propose_delay_flight", parameters)
    say(f"proposal {proposal['id']} is {proposal['state']}")
    return dict(proposal)


def decide(approver: Api, proposal_id: str) -> dict[str, Any]:
    """A person reads the diff and approves exactly that: the hash of what was read."""
    seen = approver.get(f"/v1/proposals/{proposal_id}")
    done = approver.post(f"/v1/proposals/{proposal_id}/approve", {"hash": seen["hash"], "comment": "agreed"})
    say(f"approved {seen['hash'][:16]}…; the proposal is {done['state']}")
    if done["state"] != "executed":
        sys.exit(f"expected the proposal to be executed: {done}")
    return dict(done)


def find_event(operator: Api, proposal_id: str) -> None:
    """The execution's event, read from the replayable stream."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        events = operator.get("/v1/events", format="json", limit=1000, type="tenon.proposal.executed.v1")["events"]
        if mine := [event for event in events if proposal_id in event["subject"]]:
            say(f"{mine[0]['type']} about {mine[0]['subject']} at {mine[0]['time']}")
            return
        time.sleep(0.2)
    sys.exit("the event did not arrive")


def verify_offline(approver: Api, operator: Api, proposal_id: str, public_key: Path) -> None:
    """Fetch the receipt of the execution and check it with nothing but the log's public key."""
    deadline = time.monotonic() + 20
    entries = operator.get("/v1/audit/entries", resource_id=proposal_id, action="proposal.execute")["entries"]
    while True:
        response = operator._client.get(f"/v1/audit/receipts/{entries[0]['id']}")
        if response.is_success or time.monotonic() > deadline:
            break
        time.sleep(0.3)  # the next checkpoint is at most a second away
    with tempfile.TemporaryDirectory() as folder:
        receipt = Path(folder) / "receipt.json"
        receipt.write_bytes(response.content)
        tenon = Path(sys.executable).with_name("tenon")
        done = subprocess.run(
            [str(tenon), "audit", "verify", str(receipt), "--key", str(public_key)], capture_output=True, text=True, check=False
        )
    say(done.stdout.strip().replace("\n", "\n   "))
    if done.returncode != 0:
        sys.exit(f"the receipt does not verify: {done.stderr.strip()}")
    console.print("   [bold green]receipt verified[/]")


def roll_back(editor: Api, approver: Api, before: dict[str, Any], proposal_id: str) -> None:
    """The inverse takes the same path; afterwards every property is as it was."""
    during = editor.get(f"/v1/objects/flight/{before['id']}")
    inverse = editor.post(f"/v1/proposals/{proposal_id}/roll-back", {})
    decide(approver, inverse["id"])
    after = editor.get(f"/v1/objects/flight/{before['id']}")
    for name in CHANGED:
        say(f"{name}: {during[name]!r} → {after[name]!r}")
        if during[name] == before[name] or after[name] != before[name]:
            sys.exit(f"{name} was not restored")
    console.print("   [bold green]rollback proven[/]: the business properties are what they were; the version only grew")


def print_usage(operator: Api, session_id: str) -> None:
    """What the session cost, exactly once a call."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        records = [r for r in operator.get("/v1/usage", limit=100)["records"] if r["session_id"] == session_id]
        if records:
            break
        time.sleep(0.3)
    for record in records:
        say(
            f"{record['model']}: {record['input_tokens']} in, {record['output_tokens']} out, {record['outcome']}, request {record['request_id']}"
        )


async def main() -> None:
    installation = installations.locate()
    settings, keys = load_settings(installation.config_file), installations.load_demo(installation)
    agent, editor, approver, operator = (Api(settings.api_listen, keys[name]) for name in ("agent", "editor", "approver", "operator"))

    step(1, "The agent opens a session: its ceiling of markings is fixed from here on")
    session = agent.post("/v1/agent-sessions", {"ceiling": ["fleet_confidential"], "purpose": "passenger notices", "ttl_seconds": 3600})
    say(f"session {session['id']} sees {', '.join(session['ceiling'])} and calls only models cleared for it")

    headers = {"Authorization": f"Bearer {session['key']}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as web,
        Client(streamable_http_client(f"http://{settings.api_listen}/mcp", http_client=web)) as tools,
    ):
        step(2, "It finds the worst-delayed departures of 8 February 2013 and their weather, over MCP")
        flight = await find_worst(tools)
        step(3, "A model drafts the passengers' notice, through the gateway, with the same key")
        notice = draft_notice(settings.gateway_listen, session["key"], flight)
        step(4, "It simulates delay_flight and proposes it; it can never approve")
        proposal = await propose(tools, flight, notice)
    before = editor.get(f"/v1/objects/flight/{flight['id']}")
    step(5, "Another principal approves the diff, and it executes")
    decide(approver, proposal["id"])
    step(6, "The event is in the stream")
    find_event(operator, proposal["id"])
    step(7, "The receipt is verified offline, with the log's public key alone")
    verify_offline(approver, operator, proposal["id"], settings.checkpoint_dir / "log.pub")
    step(8, "It is rolled back, in the same way")
    roll_back(editor, approver, before, proposal["id"])
    step(9, "What it cost")
    print_usage(operator, session["id"])
    operator.post(f"/v1/agent-sessions/{session['id']}/close", {})


if __name__ == "__main__":
    asyncio.run(main())
