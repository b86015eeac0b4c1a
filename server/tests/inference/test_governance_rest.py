"""The HTTP routes of limits, prices and budgets, in the order of statuses: 401, 404, 403, 4xx, then success."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from tenon.inference import billing
from tenon.inference.billing import GatewayProcess, LeaseRequest
from tenon.kit import clock

LIMIT = {"subject": "tenant", "requests_per_minute": 60, "tokens_per_minute": 9_000, "concurrency": 3}
PRICE = {"model": "tiny", "currency": "EUR", "input_nano_per_million": 5, "output_nano_per_million": 7}
BUDGET = {"subject": "model", "subject_id": "tiny", "mode": "hard", "currency": "EUR", "amount_nano": 1_600, "period": "month"}
BODIES = {"/v1/limits": LIMIT, "/v1/prices": PRICE, "/v1/budgets": BUDGET}


def headers(key: str, idempotency: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "idempotency-key": idempotency or str(uuid4())}


async def make(web, key: str, path: str, **changes: Any) -> dict[str, Any]:
    answer = await web.post(path, json=BODIES[path] | changes, headers=headers(key))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_without_a_key_nothing(web) -> None:
    for path, body in BODIES.items():
        assert (await web.get(path)).status_code == 401
        assert (await web.post(path, json=body)).status_code == 401


async def test_a_stranger_finds_nothing(web, keys) -> None:
    stranger = headers(keys["stranger"])
    for path, body in BODIES.items():
        id = (await make(web, keys["operator"], path))["id"]
        assert (await web.get(f"{path}/{id}", headers=stranger)).status_code == 404
        assert list((await web.get(path, headers=stranger)).json().values()) == [[]]
        if path != "/v1/prices":
            changed = {"amount_nano": 5} if path == "/v1/budgets" else body
            assert (await web.put(f"{path}/{id}", json=changed, headers=headers(keys["stranger"]))).status_code == 404
            assert (await web.delete(f"{path}/{id}", headers=headers(keys["stranger"]))).status_code == 404
    assert (await web.get(f"/v1/budgets/{id}/leases", headers=stranger)).status_code == 404


async def test_a_viewer_may_not(web, keys) -> None:
    for path, body in BODIES.items():
        assert (await web.get(path, headers=headers(keys["viewer"]))).status_code == 403
        assert (await web.post(path, json=body, headers=headers(keys["viewer"]))).status_code == 403


@pytest.mark.parametrize(
    ("path", "change", "code"),
    [
        ("/v1/limits", {"requests_per_minute": -1}, "invalid_limit"),
        ("/v1/limits", {"requests_per_minute": 0, "tokens_per_minute": 0, "concurrency": 0}, "invalid_limit"),
        ("/v1/limits", {"concurrency": 10**7}, "invalid_limit"),
        ("/v1/limits", {"subject": "project", "subject_id": str(uuid4())}, "unknown_subject"),
        ("/v1/limits", {"subject": "key", "subject_id": "0123456789"}, "unknown_subject"),
        ("/v1/limits", {"subject": "key", "subject_id": "'; drop table x; --"}, "unknown_subject"),
        ("/v1/limits", {"subject": "tenant", "subject_id": str(uuid4())}, "unknown_subject"),
        ("/v1/limits", {"subject": "galaxy"}, "invalid_request"),
        ("/v1/prices", {"currency": "eur"}, "invalid_price"),
        ("/v1/prices", {"input_nano_per_million": -1}, "invalid_price"),
        ("/v1/prices", {"image_nano": 10**16}, "invalid_price"),
        ("/v1/prices", {"effective_from": "2020-01-01T00:00:00Z"}, "invalid_price"),
        ("/v1/prices", {"effective_from": "2099-01-01T00:00:00"}, "invalid_price"),
        ("/v1/prices", {"model": ""}, "invalid_price"),
        ("/v1/budgets", {"amount_nano": 0}, "invalid_budget"),
        ("/v1/budgets", {"amount_nano": 10**19}, "invalid_budget"),
        ("/v1/budgets", {"currency": "EU1"}, "invalid_budget"),
        ("/v1/budgets", {"subject": "principal", "subject_id": "x"}, "unknown_subject"),
        ("/v1/budgets", {"period": "week"}, "invalid_request"),
    ],
)
async def test_bad_input(web, keys, path: str, change: dict[str, Any], code: str) -> None:
    answer = await web.post(path, json=BODIES[path] | change, headers=headers(keys["operator"]))
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text


async def test_a_limit_is_made_changed_and_removed(web, keys) -> None:
    operator = keys["operator"]
    once = headers(operator, "same")
    first, again = [await web.post("/v1/limits", json=LIMIT, headers=once) for _ in range(2)]
    assert first.json() == again.json()
    limit = first.json()
    twin = await web.post("/v1/limits", json=LIMIT, headers=headers(operator))
    assert (twin.status_code, twin.json()["code"]) == (409, "limit_exists")
    changed = await web.put(f"/v1/limits/{limit['id']}", json=LIMIT | {"concurrency": 9}, headers=headers(operator))
    assert changed.json() == limit | {"concurrency": 9}
    moved = await web.put(f"/v1/limits/{limit['id']}", json=LIMIT | {"subject": "model", "subject_id": "m"}, headers=headers(operator))
    assert moved.json()["code"] == "invalid_limit"
    assert (await web.get(f"/v1/limits/{limit['id']}", headers=headers(operator))).json() == changed.json() | {"shares": []}
    assert (await web.delete(f"/v1/limits/{limit['id']}", headers=headers(operator))).json()["deleted"]
    assert (await web.get("/v1/limits", headers=headers(operator))).json() == {"limits": []}


async def test_prices_are_versions_that_stay(web, keys) -> None:
    operator = keys["operator"]
    first = await make(web, operator, "/v1/prices", effective_from="2098-01-01T00:00:00Z")
    assert (first["cache_read_nano_per_million"], first["reasoning_nano_per_million"], first["image_nano"]) == (5, 7, 0)
    twin = await web.post("/v1/prices", json=PRICE | {"effective_from": "2098-01-01T00:00:00Z"}, headers=headers(operator))
    assert (twin.status_code, twin.json()["code"]) == (409, "price_exists")
    second = await make(web, operator, "/v1/prices", cache_read_nano_per_million=0)
    listed = (await web.get("/v1/prices?model=tiny", headers=headers(operator))).json()["prices"]
    assert [price["id"] for price in listed] == [first["id"], second["id"]]
    assert (await web.get(f"/v1/prices/{second['id']}", headers=headers(operator))).json() == listed[1]
    assert (await web.delete(f"/v1/prices/{first['id']}", headers=headers(operator))).status_code == 405


async def test_a_budget_shows_what_is_leased_and_a_lease_can_be_written_off(web, keys, login) -> None:
    operator = keys["operator"]
    budget = await make(web, operator, "/v1/budgets")
    where = f"/v1/budgets/{budget['id']}"
    assert (await web.post("/v1/budgets", json=BUDGET, headers=headers(operator))).json()["code"] == "budget_exists"
    async with login("lease").system() as session:
        await billing.exchange_leases(session, GatewayProcess("gw-1", uuid4(), clock.now()), [LeaseRequest(UUID(budget["id"]), 40)], [])
    state = (await web.get(where, headers=headers(operator))).json()["state"]
    assert [state[name] for name in ("leased_nano", "spent_nano", "remaining_nano", "overdraft_nano")] == [100, 0, 1_500, 0]
    assert state["starts_at"].endswith("-01T00:00:00Z")
    (lease,) = (await web.get(f"{where}/leases", headers=headers(operator))).json()["leases"]
    off = f"{where}/leases/{lease['id']}/write-off"
    assert (await web.post(off, json={}, headers=headers(operator))).json()["code"] == "lease_still_valid"
    assert (await web.post(off, json={}, headers=headers(keys["stranger"]))).status_code == 404
    assert (await web.post(off, json={}, headers=headers(keys["viewer"]))).status_code == 403
    async with login("migrate").system() as session:
        await session.execute("update tenon.lease set deadline = now() - interval '1 minute' where id = :id", {"id": lease["id"]})
    done = await web.post(off, json={"spent_nano": 60}, headers=headers(operator))
    assert (done.status_code, done.json()["state"], done.json()["spent_nano"]) == (200, "written_off", 60)
    assert (await web.get(where, headers=headers(operator))).json()["state"]["remaining_nano"] == 1_540
    assert (await web.get(f"{where}/leases", headers=headers(operator))).json() == {"leases": []}
    changed = await web.put(where, json={"amount_nano": 2_000}, headers=headers(operator))
    assert changed.json() == budget | {"amount_nano": 2_000}
    assert (await web.delete(where, headers=headers(operator))).json()["deleted"]
    assert (await web.get(where, headers=headers(operator))).status_code == 404
