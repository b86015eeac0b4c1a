"""REST handlers with real keys: anonymous 401, another tenant 404, not permitted 403, bad input 4xx, then success."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from actions_tenant import ActionsTenant, create_actions_tenant
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


async def caller(airline: ActionsTenant, role: str, http: httpx2.AsyncClient) -> Caller:
    """Requests with a real key of this role's principal."""
    operator = airline.context("operator")
    assert operator.project is not None
    async with airline.api.tenant(operator.identity) as session:
        key = await identity.create_key(
            session, operator, KeyRequest(airline.context(role).principal, operator.project, KeyKind.USER, role)
        )

    async def send(method: str, path: str, json: Any = None, **headers: str) -> httpx2.Response:
        sent = {"authorization": f"Bearer {key.text}", "idempotency-key": str(uuid4()), **headers}
        return await http.request(method, path, json=json, headers={name: value for name, value in sent.items() if value})

    return send


@pytest.fixture
async def http(login: Callable[[str], Database], database: Database) -> AsyncIterator[httpx2.AsyncClient]:
    """The handlers behind the real request middleware."""
    middleware = Middleware(RequestMiddleware, authenticator=Authenticator(login("auth")), sample_ratio=0.0)
    app = FastAPI(middleware=[middleware], exception_handlers={RequestValidationError: problems.of_validation_error})
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


def delay_request(flight: UUID, minutes: int = 45) -> dict[str, Any]:
    """The body of a proposal to delay a flight."""
    return {"action_type": "delay_flight", "parameters": {"flight": str(flight), "minutes": minutes, "notice": "Snow."}}


@pytest.fixture
async def pending(airline: ActionsTenant) -> dict[str, Any]:
    """A proposal that waits for approval."""
    flight = await airline.flight(90)
    return await airline.propose("delay_flight", flight=str(flight), minutes=45, notice="Snow.")


def body_for(path: str, proposal: dict[str, Any]) -> dict[str, Any]:
    """A valid body for a route of one proposal."""
    return {"hash": proposal["hash"]} if path.endswith("approve") else {}


@pytest.mark.parametrize("role", ["editor", "approver"])
@pytest.mark.parametrize(("method", "path"), ROUTES[4:])
async def test_another_tenant(
    pending: dict[str, Any], login: Any, tenant_b: Any, http: httpx2.AsyncClient, method: str, path: str, role: str
) -> None:
    stranger = await caller(await create_actions_tenant(login, tenant_b), role, http)
    answer = await stranger(method, path.format(id=pending["id"]), body_for(path, pending) if method == "POST" else None)
    assert (answer.status_code, answer.json()["code"]) == (404, "proposal_not_found")


async def test_viewer_may_not_propose(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    viewer = await caller(airline, "viewer", http)
    assert (await viewer("POST", "/v1/proposals", delay_request(await airline.flight(90)))).status_code == 403


async def test_viewer_may_not_simulate(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    viewer = await caller(airline, "viewer", http)
    body = {"parameters": delay_request(await airline.flight(90))["parameters"]}
    assert (await viewer("POST", "/v1/actions/delay_flight/simulate", body)).status_code == 403


@pytest.mark.parametrize("path", [path for method, path in ROUTES[5:]])
async def test_viewer_may_not_change_a_proposal(
    airline: ActionsTenant, pending: dict[str, Any], http: httpx2.AsyncClient, path: str
) -> None:
    viewer = await caller(airline, "viewer", http)
    assert (await viewer("POST", path.format(id=pending["id"]), body_for(path, pending))).status_code == 403


async def test_missing_idempotency_key(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    answer = await editor("POST", "/v1/proposals", delay_request(await airline.flight(90)), **{"idempotency-key": ""})
    assert answer.json()["code"] == "missing_idempotency_key"


async def test_unknown_field(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    body = delay_request(await airline.flight(90)) | {"surprise": 1}
    assert (await editor("POST", "/v1/proposals", body)).status_code == 400


async def test_invalid_parameter(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    answer = await editor("POST", "/v1/proposals", delay_request(await airline.flight(90), minutes=0))
    assert (answer.status_code, answer.json()["path"]) == (400, "parameters.minutes")


async def test_invalid_cursor(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    assert (await editor("GET", "/v1/proposals?after=nonsense")).json()["code"] == "invalid_cursor"


@pytest.mark.parametrize(("hash_", "status"), [("xyz", 400), ("00" * 32, 409)])
async def test_approval_with_a_wrong_hash(
    airline: ActionsTenant, pending: dict[str, Any], http: httpx2.AsyncClient, hash_: str, status: int
) -> None:
    approver = await caller(airline, "approver", http)
    assert (await approver("POST", f"/v1/proposals/{pending['id']}/approve", {"hash": hash_})).status_code == status


async def test_approval_with_an_unprintable_comment(airline: ActionsTenant, pending: dict[str, Any], http: httpx2.AsyncClient) -> None:
    approver = await caller(airline, "approver", http)
    body = {"hash": pending["hash"], "comment": "a\0b"}
    assert (await approver("POST", f"/v1/proposals/{pending['id']}/approve", body)).json()["code"] == "invalid_comment"


async def test_propose_approve_execute_roll_back(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor, approver = await caller(airline, "editor", http), await caller(airline, "approver", http)
    proposed = await editor("POST", "/v1/proposals", delay_request(await airline.flight(90)))
    assert (proposed.status_code, proposed.json()["state"]) == (201, "pending_approval")
    id_, hash_ = proposed.json()["id"], proposed.json()["hash"]
    approved = await approver("POST", f"/v1/proposals/{id_}/approve", {"hash": hash_})
    assert (approved.status_code, approved.json()["state"]) == (200, "executed")
    assert (await editor("POST", f"/v1/proposals/{id_}/execute", {})).json()["state"] == "executed"
    inverse = await editor("POST", f"/v1/proposals/{id_}/roll-back", {})
    assert (inverse.status_code, inverse.json()["rolls_back"]) == (201, id_)


async def test_actions_and_their_parameters(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor, viewer = await caller(airline, "editor", http), await caller(airline, "viewer", http)
    offered = {each["name"]: each for each in (await editor("GET", "/v1/actions")).json()["action_types"]}
    assert set(offered) == {"delay_flight", "swap_aircraft", "cancel_departures"}
    schema = offered["delay_flight"]["parameters"]
    assert sorted(schema["required"]) == ["flight", "minutes", "notice"]
    assert schema["properties"]["minutes"] == {
        "type": "integer", "minimum": 1, "maximum": 1440, "description": "Minutes after the scheduled departure.",
    }  # fmt: skip
    assert schema["properties"]["flight"]["anyOf"][1]["required"] == ["scheduled_hour", "carrier", "flight_number"]
    assert (await viewer("GET", "/v1/actions")).json() == {"action_types": []}


async def test_the_same_key_gets_the_same_answer(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    body, key = delay_request(await airline.flight(90)), {"idempotency-key": "k1"}
    first = await editor("POST", "/v1/proposals", body, **key)
    again = await editor("POST", "/v1/proposals", body, **key)
    assert (again.status_code, again.json(), again.headers["idempotent-replayed"]) == (201, first.json(), "true")


async def test_the_same_key_with_another_body(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    flight, key = await airline.flight(90), {"idempotency-key": "k1"}
    await editor("POST", "/v1/proposals", delay_request(flight), **key)
    assert (await editor("POST", "/v1/proposals", delay_request(flight, minutes=46), **key)).status_code == 422


async def test_pages(airline: ActionsTenant, http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    ids = []
    for number in range(1, 6):
        flight = await airline.flight(number)
        ids.append((await airline.propose("delay_flight", flight=str(flight), minutes=5, notice="x"))["id"])
    listed, after = [], ""
    while True:
        page = (await editor("GET", f"/v1/proposals?first=2&state=pending_approval{after}")).json()
        listed += [proposal["id"] for proposal in page["proposals"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert listed == ids[::-1]


async def test_waiting_ends_with_the_time(airline: ActionsTenant, pending: dict[str, Any], http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    answer = await editor("GET", f"/v1/proposals/{pending['id']}?known_state=pending_approval&wait_seconds=0.3")
    assert answer.json()["state"] == "pending_approval"


async def test_waiting_ends_with_another_state(airline: ActionsTenant, pending: dict[str, Any], http: httpx2.AsyncClient) -> None:
    editor = await caller(airline, "editor", http)
    answer = await editor("GET", f"/v1/proposals/{pending['id']}?known_state=proposed&wait_seconds=20")
    assert answer.json()["id"] == pending["id"]
