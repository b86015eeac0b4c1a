"""The REST door with real keys: anonymous 401, stranger 404, unpermitted 403, bad input 4xx, then success."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from actions_world import World, make_world
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.middleware import Middleware

from tenon.core import identity
from tenon.core.identity import Authenticator, KeyKind, KeyRequest
from tenon.entrypoints.api import problems
from tenon.entrypoints.api.middleware import RequestMiddleware
from tenon.kit.database import Database
from tenon.ontology.actions import rest

Caller = Callable[..., Any]


async def caller(world: World, role: str, http: httpx2.AsyncClient) -> Caller:
    """Requests with a real key of this role's principal."""
    operator = world.who("operator")
    assert operator.project is not None
    async with world.api.tenant(operator.identity) as session:
        key = await identity.create_key(session, operator, KeyRequest(world.who(role).principal, operator.project, KeyKind.USER, role))

    async def send(method: str, path: str, json: Any = None, **headers: str) -> httpx2.Response:
        sent = {"authorization": f"Bearer {key.text}", "idempotency-key": str(uuid4()), **headers}
        return await http.request(method, path, json=json, headers={name: value for name, value in sent.items() if value})

    return send


@pytest.fixture
async def http(login: Callable[[str], Database], database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    """The door behind the real gate."""
    gate = Middleware(RequestMiddleware, authenticator=Authenticator(login("auth")), development=False, sample_ratio=0.0)
    app = FastAPI(middleware=[gate], exception_handlers={RequestValidationError: problems.of_validation_error})
    app.state.database = database
    app.include_router(rest.router)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://tenon") as client:
        yield client


ROUTES = [
    ("GET", "/v1/actions"),
    ("POST", "/v1/actions/delay_flight/simulate"),
    ("POST", "/v1/proposals"),
    ("GET", "/v1/proposals"),
    ("GET", "/v1/proposals/{id}"),
    ("POST", "/v1/proposals/{id}/approve"),
    ("POST", "/v1/proposals/{id}/reject"),
    ("POST", "/v1/proposals/{id}/execute"),
    ("POST", "/v1/proposals/{id}/roll-back"),
]


def test_every_route_is_listed_here() -> None:
    assert {(method, route.path) for route in rest.router.routes for method in route.methods} == {  # type: ignore[attr-defined]
        (method, path.replace("{id}", "{proposal_id}").replace("delay_flight", "{action_type}")) for method, path in ROUTES
    }


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_anonymous(http: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await http.request(method, path.format(id=uuid4()), json={})
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_api_key")


async def test_strangers_unpermitted_and_the_whole_road(world: World, login: Any, tenant_b: Any, http: httpx2.AsyncClient) -> None:
    editor, approver, viewer = [await caller(world, role, http) for role in ("editor", "approver", "viewer")]
    flight = await world.flight(90)
    given = {"flight": str(flight), "minutes": 45, "notice": "Snow."}
    new = {"action_type": "delay_flight", "parameters": given}
    made = await editor("POST", "/v1/proposals", new)
    assert (made.status_code, made.json()["state"]) == (201, "pending_approval")
    id_, hash_ = made.json()["id"], made.json()["hash"]

    other = await make_world(login, tenant_b)
    for role in ("editor", "approver"):
        stranger = await caller(other, role, http)
        for method, path in ROUTES[4:]:
            body = {"hash": hash_} if path.endswith("approve") else {}
            answer = await stranger(method, path.format(id=id_), body if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (404, "proposal_not_found"), (role, path)

    assert (await viewer("POST", "/v1/proposals", new)).status_code == 403
    assert (await viewer("POST", "/v1/actions/delay_flight/simulate", {"parameters": given})).status_code == 403
    for path, body in (("approve", {"hash": hash_}), ("reject", {}), ("execute", {}), ("roll-back", {})):
        assert (await viewer("POST", f"/v1/proposals/{id_}/{path}", body)).status_code == 403, path

    assert (await editor("POST", "/v1/proposals", new, **{"idempotency-key": ""})).json()["code"] == "missing_idempotency_key"
    assert (await approver("POST", f"/v1/proposals/{id_}/approve", {"hash": "xyz"})).status_code == 400
    assert (await approver("POST", f"/v1/proposals/{id_}/approve", {"hash": "00" * 32})).status_code == 409
    assert (await approver("POST", f"/v1/proposals/{id_}/approve", {"hash": hash_, "comment": "a\0b"})).json()["code"] == "invalid_comment"
    assert (await editor("POST", "/v1/proposals", new | {"surprise": 1})).status_code == 400
    assert (await editor("GET", "/v1/proposals?after=nonsense")).json()["code"] == "invalid_cursor"
    refused = await editor("POST", "/v1/proposals", {**new, "parameters": {**given, "minutes": 0}})
    assert (refused.status_code, refused.json()["path"]) == (400, "parameters.minutes")

    done = await approver("POST", f"/v1/proposals/{id_}/approve", {"hash": hash_})
    assert (done.status_code, done.json()["state"]) == (200, "executed")
    assert (await editor("POST", f"/v1/proposals/{id_}/execute", {})).json()["state"] == "executed"
    inverse = await editor("POST", f"/v1/proposals/{id_}/roll-back", {})
    assert (inverse.status_code, inverse.json()["rolls_back"]) == (201, id_)


async def test_actions_and_their_parameters(world: World, http: httpx2.AsyncClient) -> None:
    editor, viewer = await caller(world, "editor", http), await caller(world, "viewer", http)
    offered = {each["name"]: each for each in (await editor("GET", "/v1/actions")).json()["action_types"]}
    assert set(offered) == {"delay_flight", "swap_aircraft", "cancel_departures"}
    schema = offered["delay_flight"]["parameters"]
    assert sorted(schema["required"]) == ["flight", "minutes", "notice"]
    assert schema["properties"]["minutes"] == {
        "type": "integer", "minimum": 1, "maximum": 1440, "description": "Minutes after the scheduled departure.",
    }  # fmt: skip
    assert schema["properties"]["flight"]["anyOf"][1]["required"] == ["scheduled_hour", "carrier", "flight_number"]
    assert (await viewer("GET", "/v1/actions")).json() == {"action_types": []}


async def test_the_same_key_gets_the_same_answer(world: World, http: httpx2.AsyncClient) -> None:
    editor = await caller(world, "editor", http)
    flight = await world.flight(90)
    new = {"action_type": "delay_flight", "parameters": {"flight": str(flight), "minutes": 45, "notice": "Snow."}}
    same = {"idempotency-key": "k1"}
    first, again = await editor("POST", "/v1/proposals", new, **same), await editor("POST", "/v1/proposals", new, **same)
    assert (again.status_code, again.json(), again.headers["idempotent-replayed"]) == (201, first.json(), "true")
    new["parameters"]["minutes"] = 46
    assert (await editor("POST", "/v1/proposals", new, **same)).status_code == 422


async def test_pages_and_waiting(world: World, http: httpx2.AsyncClient) -> None:
    editor = await caller(world, "editor", http)
    ids = []
    for number in range(1, 6):
        flight = await world.flight(number)
        ids.append((await world.propose("delay_flight", flight=str(flight), minutes=5, notice="x"))["id"])
    found, after = [], ""
    while True:
        page = (await editor("GET", f"/v1/proposals?first=2&state=pending_approval{after}")).json()
        found += [proposal["id"] for proposal in page["proposals"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == ids[::-1]
    waited = await editor("GET", f"/v1/proposals/{ids[0]}?known_state=pending_approval&wait_seconds=0.3")
    assert waited.json()["state"] == "pending_approval"
    assert (await editor("GET", f"/v1/proposals/{ids[0]}?known_state=proposed&wait_seconds=20")).json()["id"] == ids[0]
