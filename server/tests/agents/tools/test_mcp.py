"""An agent's view through MCP: the official client against the real application."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from tenon.ontology import actions

FLEET = "fleet_confidential"


async def call(client, name: str, **arguments: Any) -> dict[str, Any]:
    """The structured result of a call that must succeed."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.structured_content
    return result.structured_content


async def refusal(client, name: str, **arguments: Any) -> dict[str, Any]:
    """The structured refusal of a call that must not succeed."""
    result = await client.call_tool(name, arguments)
    assert result.is_error, result.structured_content
    assert set(result.structured_content) >= {"code", "message"}
    assert result.content[0].text.startswith(result.structured_content["code"])
    return result.structured_content


def everything(result: Any) -> str:
    return json.dumps([[block.text for block in result.content], result.structured_content])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_agent_finds_follows_simulates_proposes_and_watches(airline, mode: str) -> None:
    flight = await airline.flight(7)
    async with airline.tools(await airline.session_key(), mode) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"list_object_types", "search_flights", "get_flight", "aggregate_flights", "follow_link", "simulate_delay_flight",
                "propose_delay_flight", "get_proposal", "watch_proposal"} <= names  # fmt: skip
        assert not any("approve" in name or "reject" in name or "execute" in name for name in names)
        tools_by_name = await call(
            client, "search_flights", filter={"origin": {"eq": "JFK"}}, sort=["-departure_delay_minutes"], fields=["flight_number"]
        )
        assert [item["flight_number"] for item in tools_by_name["items"]] == [7]
        assert (await call(client, "get_airport", key={"code": "JFK"}))["name"] == "Kennedy"
        assert (await call(client, "follow_link", type="flight", id=str(flight), link="plane"))["tail_number"] == "N14228"
        groups = (await call(client, "aggregate_flights", group_by=["origin"], measures={"max": ["departure_delay_minutes"]}))["groups"]
        assert groups == [{"key": {"origin": "JFK"}, "count": 1, "max": {"departure_delay_minutes": 7}}]
        arguments_sent = {"flight": str(flight), "minutes": 90, "notice": "Sorry."}
        simulated = await call(client, "simulate_delay_flight", **arguments_sent)
        assert simulated["diff"][0]["after"]["departure_delay_minutes"] == 90
        proposed = await call(client, "propose_delay_flight", **arguments_sent)
        assert proposed["state"] == "pending_approval"
        assert proposed["diff"][0]["after"] == simulated["diff"][0]["after"]
        watching = asyncio.create_task(call(client, "watch_proposal", id=proposed["id"], known_state="pending_approval"))
        approver, id = airline.tenant.context("approver"), UUID(proposed["id"])
        await actions.approve(airline.login("api"), approver, id, hash=bytes.fromhex(proposed["hash"]), key="k")
        state = (await watching)["state"]
        while state in {"approved", "executing"}:  # a busy machine shows the states between, too
            state = (await call(client, "watch_proposal", id=proposed["id"], known_state=state))["state"]
        assert state == "executed"
        assert (await call(client, "get_proposal", id=proposed["id"]))["state"] == "executed"


async def test_a_call_repeated_with_its_key_is_one_proposal(airline) -> None:
    flight = await airline.flight()
    async with airline.tools(await airline.session_key()) as client:
        arguments_sent = {"flight": str(flight), "minutes": 90, "notice": "Sorry.", "idempotency_key": "one"}
        first, second = [await call(client, "propose_delay_flight", **arguments_sent) for _ in range(2)]
        assert first["id"] == second["id"]
        assert (await call(client, "propose_delay_flight", **(arguments_sent | {"idempotency_key": "two"})))["id"] != first["id"]


async def test_a_base_key_is_refused_and_names_the_repair(airline) -> None:
    async with airline.tools(await airline.key("agent")) as client:
        with pytest.raises(MCPError) as caught:
            await client.list_tools()
        assert "session_needed" in str(caught.value)
        refused = await refusal(client, "search_flights")
        assert (refused["code"], "agent-sessions" in refused["repair"]) == ("session_needed", True)


async def test_what_is_above_the_ceiling_is_nowhere(airline) -> None:
    await airline.flight()
    async with airline.tools(await airline.session_key()) as low:
        listed = json.dumps([tool.model_dump(mode="json") for tool in (await low.list_tools()).tools])
        calls = [
            ("list_object_types", {}), ("search_planes", {}), ("get_plane", {"key": {"tail_number": "N14228"}}), ("aggregate_planes", {}),
            ("search_planes", {"filter": {"manufacturer": {"eq": "BOEING"}}}),
        ]  # fmt: skip
        said = listed + "".join([everything(await low.call_tool(name, arguments)) for name, arguments in calls])
        assert "149" not in said
        assert "seats" not in said
        assert "Turbo-fan" not in said
        # Naming it is like naming what does not exist.
        for hidden, absent in (("seats", "wings"),):
            for make in (
                lambda name: ("search_planes", {"filter": {name: {"gt": 1}}}),
                lambda name: ("search_planes", {"filter": {"and": [{name: {"gt": 1}}]}}),
                lambda name: ("search_planes", {"sort": [name]}),
                lambda name: ("search_planes", {"fields": [name]}),
                lambda name: ("aggregate_planes", {"group_by": [name]}),
                lambda name: ("aggregate_planes", {"measures": {"sum": [name]}}),
                lambda name: ("aggregate_planes", {"sort": [f"-avg.{name}"]}),
            ):
                first, second = [await refusal(low, tool, **arguments) for tool, arguments in (make(hidden), make(absent))]
                assert json.dumps(first).replace(hidden, absent) == json.dumps(second)


async def test_a_ceiling_shows_what_is_under_it(airline) -> None:
    async with airline.tools(await airline.session_key(FLEET)) as high:
        assert (await call(high, "get_plane", key={"tail_number": "N14228"}))["seats"] == 149


async def test_another_tenants_ids_are_not_found_on_every_tool(airline, rival) -> None:
    flight = await airline.flight(33)
    proposal = (await actions.propose(
        airline.login("api"), airline.tenant.context("editor"),
        actions.ActionRequest("delay_flight", {"flight": str(flight), "minutes": 5, "notice": "x"}), key="k",
    ))[1]  # fmt: skip
    async with rival.tools(await rival.session_key()) as client:
        unknown = str(uuid4())
        for tool, make in (
            ("get_flight", lambda id: {"id": id}),
            ("follow_link", lambda id: {"type": "flight", "id": id, "link": "plane"}),
            ("simulate_delay_flight", lambda id: {"flight": id, "minutes": 5, "notice": "x"}),
            ("propose_delay_flight", lambda id: {"flight": id, "minutes": 5, "notice": "x"}),
        ):
            theirs, nobodys = await refusal(client, tool, **make(str(flight))), await refusal(client, tool, **make(unknown))
            assert theirs["code"] == nobodys["code"]
            assert json.dumps(theirs).replace(str(flight), unknown) == json.dumps(nobodys)
        for tool, extra in (("get_proposal", {}), ("watch_proposal", {"known_state": "executed", "wait_seconds": 0})):
            assert (await refusal(client, tool, id=proposal["id"], **extra))["code"] == "proposal_not_found"
        assert (await call(client, "search_flights"))["items"] == []
        assert (await call(client, "aggregate_flights"))["groups"][0]["count"] == 0


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "path"),
    [
        ("search_flights", {"first": 0}, "invalid_arguments", "first"),
        ("search_flights", {"filter": {"flight_number": {"eq": "seven"}}}, "invalid_arguments", "filter.flight_number.eq"),
        ("search_flights", {"surprise": 1}, "invalid_arguments", "arguments"),
        ("get_flight", {}, "invalid_arguments", "id"),
        ("get_proposal", {}, "invalid_arguments", "arguments"),
        ("get_proposal", {"id": "x"}, "invalid_arguments", "id"),
        ("simulate_delay_flight", {"minutes": 5}, "missing_parameter", "parameters.flight"),
        ("search_nothing", {}, "unknown_tool", None),
    ],
)
async def test_bad_arguments_say_where_and_how_to_repair(
    airline, tool: str, arguments: dict[str, Any], code: str, path: str | None
) -> None:
    async with airline.tools(await airline.session_key()) as client:
        refused = await refusal(client, tool, **arguments)
        assert (refused["code"], refused.get("path")) == (code, path)
        assert refused.get("repair")


async def test_a_failed_precondition_comes_with_the_modellers_repair(airline) -> None:
    flight = await airline.flight(status="cancelled")
    async with airline.tools(await airline.session_key()) as client:
        refused = await refusal(client, "propose_delay_flight", flight=str(flight), minutes=5, notice="x")
        assert refused["repair"] == "Choose a flight that is not cancelled."


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_no_exception_text_gets_out(airline, monkeypatch, mode: str) -> None:
    async def broken(*_args: object, **_named: object) -> None:
        raise RuntimeError("canary: password=hunter2")

    async with airline.tools(await airline.session_key(), mode) as client:
        monkeypatch.setattr("tenon.agents.tools.service.Toolbox._reading_tools", broken)
        result = await client.call_tool("search_flights", {})
        assert result.structured_content["code"] == "internal"
        assert "canary" not in everything(result)
        with pytest.raises(MCPError) as caught:
            await client.list_tools()
        assert "canary" not in str(caught.value)


async def test_text_from_data_is_only_in_the_structured_part(airline) -> None:
    async with airline.tools(await airline.session_key()) as client:
        result = await client.call_tool("get_airport", {"key": {"code": "BOS"}})
        assert "Ignore all" in result.structured_content["name"]
        assert "Ignore all" not in result.content[0].text


async def test_a_large_result_is_cut_with_a_note(airline, monkeypatch) -> None:
    for number in range(1, 31):
        await airline.flight(number)
    monkeypatch.setattr("tenon.agents.tools.result_truncation.RESULT_BYTES_MAX", 4_000)
    async with airline.tools(await airline.session_key()) as client:
        tools_by_name = await call(client, "search_flights", first=30)
    assert 0 < len(tools_by_name["items"]) == tools_by_name["truncated"]["kept"] < tools_by_name["truncated"]["of"] == 30
    assert len(json.dumps(tools_by_name)) <= 4_000
    assert "next" not in tools_by_name


async def test_the_endpoint_takes_posts_from_known_hosts_with_a_key(airline, address) -> None:
    key = await airline.session_key()
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    async with httpx2.AsyncClient(base_url=address, headers={"accept": "application/json, text/event-stream"}) as web:
        assert (await web.post("/mcp", json=body)).status_code == 401
        headers = {"authorization": f"Bearer {key}"}
        assert (await web.get("/mcp", headers=headers)).status_code == 405
        assert (await web.post("/mcp", json=body, headers=headers)).status_code == 200
        assert (await web.post("/mcp", json=body, headers=headers | {"host": "evil.example"})).status_code == 421
        assert (await web.post("/mcp", json=body, headers=headers | {"origin": "https://evil.example"})).status_code == 403


async def test_a_viewer_gets_no_tool_to_propose_with(airline) -> None:
    async with airline.tools(await airline.key("viewer")) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "search_flights" in names
        assert not any(name.startswith(("propose_", "simulate_")) for name in names)
        flight = await airline.flight()
        assert (await refusal(client, "propose_delay_flight", flight=str(flight), minutes=5, notice="x"))["code"] in {
            "not_permitted", "action_type_not_found",
        }  # fmt: skip


async def test_a_hundred_object_types_do_not_make_hundreds_of_tools(airline) -> None:
    types = "\n".join(
        f"  thing_{n}: {{primary_key: code, properties: {{code: {{type: text, length_max: 20}}, size: {{type: integer}}}}}}"
        for n in range(100)
    )
    await airline.apply(f"ontology: 1\nobject_types:\n{types}\n")
    await airline.insert("thing_42", code="a", size=3)
    await asyncio.sleep(1.1)  # the application looks for a new ontology once a second
    async with airline.tools(await airline.session_key()) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert len(names) < 12
        tools_by_name = await call(client, "search_objects", type="thing_42", filter={"size": {"gte": 3}})
        assert [item["code"] for item in tools_by_name["items"]] == ["a"]
        assert (await call(client, "get_object", type="thing_42", key={"code": "a"}))["size"] == 3
        assert (await refusal(client, "search_objects", type="thing_100"))["path"] == "type"
