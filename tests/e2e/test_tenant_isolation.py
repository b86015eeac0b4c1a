"""Tenant B with tenant A's ids: not found on every route and every tool, exactly like an id that never existed.

The table below holds every route with a placeholder; a new route that is not in it fails the test.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.conftest import ROOT, Stack, answer

HASH = {"hash": "0" * 64}
ENDPOINT = {"name": "x", "base_url": "http://127.0.0.1:9/v1"}
LIMIT = {"subject": "tenant", "requests_per_minute": 1_000_000}
PRICE = {"model": "wall", "currency": "EUR", "input_nano_per_million": 1, "output_nano_per_million": 1}
BUDGET = {"subject": "tenant", "mode": "soft", "currency": "EUR", "amount_nano": 10**18}
ISSUER = {"issuer": "https://idp.example", "audiences": ["a"], "algorithm": "ES256", "jwks_uri": "http://127.0.0.1:9/jwks"}
# Method and template -> (who of B asks, body). Ids of A fill the placeholders.
ROUTES: dict[tuple[str, str], tuple[str, dict[str, Any] | None]] = {
    ("GET", "/v1/objects/{type}/{id}"): ("viewer", None),
    ("GET", "/v1/objects/{type}/{id}/{link}"): ("viewer", None),
    ("GET", "/v1/proposals/{proposal_id}"): ("approver", None),
    ("POST", "/v1/proposals/{proposal_id}/approve"): ("approver", HASH),
    ("POST", "/v1/proposals/{proposal_id}/reject"): ("approver", {}),
    ("POST", "/v1/proposals/{proposal_id}/execute"): ("approver", None),
    ("POST", "/v1/proposals/{proposal_id}/roll-back"): ("editor", None),
    ("GET", "/v1/audit/receipts/{entry_id}"): ("operator", None),
    ("POST", "/v1/agent-sessions/{session_id}/close"): ("operator", None),
    ("GET", "/v1/inference/endpoints/{endpoint_id}"): ("operator", None),
    ("PUT", "/v1/inference/endpoints/{endpoint_id}"): ("operator", ENDPOINT),
    ("DELETE", "/v1/inference/endpoints/{endpoint_id}"): ("operator", None),
    ("DELETE", "/v1/inference/models/{name}"): ("operator", None),
    ("POST", "/v1/usage/quarantine/{raw_sha256}/release"): ("operator", None),
    ("GET", "/v1/limits/{limit_id}"): ("operator", None),
    ("PUT", "/v1/limits/{limit_id}"): ("operator", LIMIT),
    ("DELETE", "/v1/limits/{limit_id}"): ("operator", None),
    ("GET", "/v1/prices/{price_id}"): ("operator", None),
    ("GET", "/v1/budgets/{budget_id}"): ("operator", None),
    ("PUT", "/v1/budgets/{budget_id}"): ("operator", {"amount_nano": 1}),
    ("DELETE", "/v1/budgets/{budget_id}"): ("operator", None),
    ("GET", "/v1/budgets/{budget_id}/leases"): ("operator", None),
    ("POST", "/v1/budgets/{budget_id}/leases/{lease_id}/write-off"): ("operator", {}),
    ("POST", "/v1/keys/{key_id}/revoke"): ("operator", None),
    ("POST", "/v1/keys/{key_id}/rotate"): ("operator", {"overlap_seconds": 60}),
    ("POST", "/v1/issuers/{issuer_id}/disable"): ("operator", None),
    ("POST", "/v1/issuers/{issuer_id}/refresh"): ("operator", None),
    ("POST", "/v1/principals/{principal_id}/disable"): ("operator", None),
}
# Placeholders that name no tenant's thing: words of the ontology, or a name that the caller chooses.
NO_IDS = {("POST", "/v1/actions/{action_type}/simulate"), ("PUT", "/v1/inference/models/{name}")}


@dataclass
class Two:
    """Tenant A is the demo; B has the same ontology and no data."""

    stack: Stack
    b: dict[str, str]
    ids: dict[str, str]


def post(client: httpx2.Client, path: str, body: dict[str, Any]) -> Any:
    return answer(client.post(path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())}))


def _tenant_b(stack: Stack) -> dict[str, str]:
    name = f"rival-{secrets.token_hex(4)}"
    operator = re.search(r"tnn_\S+", stack.tenon("tenant", "create", name).stdout)
    assert operator
    keys = {"operator": operator[0]}
    stack.tenon("ontology", "apply", str(ROOT / "examples" / "airline" / "ontology.yaml"), "--tenant", name)
    with stack.client(keys["operator"]) as client:
        owner = ""
        for role in ("viewer", "editor", "approver", "agent"):
            body: dict[str, Any] = {"name": role, "kind": "agent" if role == "agent" else "user", "roles": [role]}
            principal = post(client, "/v1/principals", body | ({"owner": owner} if role == "agent" else {}))
            owner = principal["id"] if role == "editor" else owner
            keys[role] = post(client, "/v1/keys", {"principal": principal["id"], "name": role})["key"]
    return keys


def _ids_of_a(stack: Stack) -> dict[str, str]:
    keys = stack.keys
    with stack.client(keys["operator"]) as operator, stack.client(keys["editor"]) as editor, stack.client(keys["agent"]) as agent:
        flight = answer(editor.get("/v1/objects/flight?status=departed&first=1"))["items"][0]["id"]
        parameters = {"flight": flight, "minutes": 12, "notice": "Late."}
        return {
            "type": "flight", "link": "plane", "id": flight,
            "proposal_id": post(editor, "/v1/proposals", {"action_type": "delay_flight", "parameters": parameters})["id"],
            "entry_id": answer(operator.get("/v1/audit/entries"))["entries"][0]["id"],
            "session_id": post(agent, "/v1/agent-sessions", {"ceiling": ["fleet_confidential"], "purpose": "wall"})["id"],
            "endpoint_id": answer(operator.get("/v1/inference/endpoints"))["endpoints"][0]["id"],
            "name": "smollm2",
            "key_id": answer(operator.get("/v1/keys"))["keys"][0]["key_id"],
            "principal_id": answer(editor.get("/v1/me"))["principal"],
            "raw_sha256": "0" * 63 + "1",  # none can be made at will: tests/inference/usage asks with a real one
            "limit_id": post(operator, "/v1/limits", LIMIT)["id"],
            "price_id": post(operator, "/v1/prices", PRICE)["id"],
            "budget_id": post(operator, "/v1/budgets", BUDGET)["id"],
            "lease_id": str(uuid.uuid4()),  # a gateway's process makes them: tests/inference/billing asks with a real one
            "issuer_id": post(operator, "/v1/issuers", ISSUER | {"name": f"wall-{secrets.token_hex(4)}"})["id"],
        }  # fmt: skip


@pytest.fixture(scope="module")
def two(stack: Stack) -> Two:
    return Two(stack, _tenant_b(stack), _ids_of_a(stack))


def every_route(stack: Stack) -> set[tuple[str, str]]:
    """All routes with a placeholder: the documented ones, and the object reads, which are plain ASGI."""
    from tenon.ontology.objects import rest

    routes = {(method, route.path) for route in rest.routes() for method in (route.methods or ()) if method != "HEAD"}
    with stack.client(None) as client:
        paths = answer(client.get("/openapi.json"))["paths"]
    routes |= {(method.upper(), path) for path, methods in paths.items() for method in methods}
    words = {"/v1/objects/{type}", "/v1/objects/{type}/by-key", "/v1/objects/{type}/aggregate"}  # by words, not by ids
    return {(method, path) for method, path in routes if "{" in path and path not in words}


def test_the_table_has_every_route(stack: Stack) -> None:
    assert every_route(stack) == ROUTES.keys() | NO_IDS


@pytest.mark.parametrize(("method", "path"), sorted(ROUTES))
def test_another_tenants_id_is_not_found(two: Two, method: str, path: str) -> None:
    role, body = ROUTES[method, path]
    answers = []
    for ids in (two.ids, {name: value if name in ("type", "link") else _stranger(value) for name, value in two.ids.items()}):
        with two.stack.client(two.b[role]) as client:
            response = client.request(method, path.format(**ids), json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
        problem = response.json()
        said = re.sub("|".join(map(re.escape, ids.values())), "…", problem["message"])
        answers.append((response.status_code, problem["code"], said))
    assert answers[0][0] == 404, answers
    assert answers[0] == answers[1], "an id of another tenant must be answered like one that never existed"


def _stranger(value: str) -> str:
    """An id of the same shape that exists nowhere."""
    return {36: str(uuid.uuid4()), 64: "0" * 64}.get(len(value), "Z" * len(value))


def test_lists_and_aggregates_hold_nothing_of_another_tenant(two: Two) -> None:
    with two.stack.client(two.b["operator"]) as operator:
        for kind in ("flight", "airport", "plane", "airline", "weather"):
            assert answer(operator.get(f"/v1/objects/{kind}"))["items"] == []
            assert sum(group["count"] for group in answer(operator.get(f"/v1/objects/{kind}/aggregate"))["groups"]) == 0
        data = answer(
            operator.post("/v1/graphql", json={"query": f'{{ flight(id: "{two.ids["id"]}") {{ id }} flights {{ items {{ id }} }} }}'})
        )
        assert data["data"] == {"flight": None, "flights": {"items": []}}
        paths = ("/v1/proposals", "/v1/events?format=json", "/v1/usage", "/v1/keys", "/v1/agent-sessions", "/v1/inference/endpoints")
        paths = (*paths, "/v1/inference/models", "/v1/limits", "/v1/prices", "/v1/budgets", "/v1/usage/quarantine")
        seen = [operator.get(path).text for path in paths]
        # B's own refused attempts name what B requests for.
        entries = answer(operator.get("/v1/audit/entries?limit=1000"))["entries"]
        seen.append(str([entry for entry in entries if entry["decision"] != "refused"]))
    for value in {value for name, value in two.ids.items() if name not in ("type", "link", "name")}:
        assert not any(value in text for text in seen), value


def test_no_tool_finds_another_tenants_things(two: Two) -> None:
    with two.stack.client(two.b["agent"]) as agent:
        key = post(agent, "/v1/agent-sessions", {"ceiling": [], "purpose": "wall"})["key"]

    async def refusals() -> dict[str, Any]:
        ids = two.ids
        requests: dict[str, dict[str, Any]] = {
            "get_flight": {"id": ids["id"]},
            "follow_link": {"type": "flight", "id": ids["id"], "link": "plane"},
            "simulate_delay_flight": {"flight": ids["id"], "minutes": 5, "notice": "x"},
            "propose_delay_flight": {"flight": ids["id"], "minutes": 5, "notice": "x"},
            "simulate_swap_aircraft": {"first": ids["id"], "second": ids["id"]},
            "propose_swap_aircraft": {"first": ids["id"], "second": ids["id"]},
            "get_proposal": {"id": ids["proposal_id"]},
            "watch_proposal": {"id": ids["proposal_id"], "known_state": "pending_approval", "wait_seconds": 1},
        }
        url = f"http://{two.stack.settings.api_listen}/mcp"
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as web,
            Client(streamable_http_client(url, http_client=web)) as tools,
        ):
            by_id = {tool.name for tool in (await tools.list_tools()).tools if _takes_ids(tool.input_schema)}
            assert {name for name in by_id if name.split("_")[0] != "get"} <= requests.keys() | {
                "simulate_cancel_departures",
                "propose_cancel_departures",
            }
            return {name: await tools.call_tool(name, arguments) for name, arguments in requests.items()}

    for name, result in asyncio.run(refusals()).items():
        assert result.is_error, name
        assert result.structured_content["code"].endswith("not_found"), (name, result.structured_content)


def _takes_ids(schema: dict[str, Any]) -> bool:
    return "uuid" in str(schema)


def test_a_gateway_key_of_b_calls_no_model_of_a(two: Two) -> None:
    with two.stack.client(two.b["editor"], f"http://{two.stack.settings.gateway_listen}") as gateway:
        assert answer(gateway.get("/v1/models"))["data"] == []
        refused = gateway.post("/v1/chat/completions", json={"model": "smollm2", "messages": [{"role": "user", "content": "x"}]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
