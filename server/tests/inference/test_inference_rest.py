"""The HTTP routes of models and usage, in the order of statuses: 401, 404, 403, 4xx, then success."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tenon.inference.usage import UsageStore
from tenon.kit.ids import uuid7

ENDPOINT = {"name": "engine", "base_url": "https://models.example.com/v1", "credential": "sk-canary"}


def headers(key: str, idempotency: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "idempotency-key": idempotency or str(uuid4())}


READS = ("/v1/inference/endpoints", "/v1/inference/models", "/v1/usage", "/v1/usage/totals")


async def test_without_a_key_nothing(web) -> None:
    for path in READS:
        assert (await web.get(path)).status_code == 401
    for method, path in (("POST", "/v1/inference/endpoints"), ("PUT", "/v1/inference/models/m"), ("DELETE", "/v1/inference/models/m")):
        assert (await web.request(method, path, json={})).status_code == 401


async def test_a_stranger_finds_nothing(web, keys) -> None:
    created = (await web.post("/v1/inference/endpoints", json=ENDPOINT, headers=headers(keys["operator"]))).json()
    stranger = headers(keys["stranger"])
    assert (await web.get(f"/v1/inference/endpoints/{created['id']}", headers=stranger)).status_code == 404
    assert (await web.delete(f"/v1/inference/endpoints/{created['id']}", headers=stranger)).status_code == 404
    assert (await web.get("/v1/inference/endpoints", headers=stranger)).json() == {"endpoints": []}


async def test_a_viewer_may_not(web, keys) -> None:
    for path in READS:
        assert (await web.get(path, headers=headers(keys["viewer"]))).status_code == 403
    assert (await web.post("/v1/inference/endpoints", json=ENDPOINT, headers=headers(keys["viewer"]))).status_code == 403


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"base_url": "http://169.254.169.254/"}, "unsafe_base_url"),
        ({"surprise": 1}, "invalid_request"),
        ({"timeouts": {"idle_ms": -1}}, "invalid_timeout"),
        ({"credential": "a\nb"}, "invalid_credential"),
    ],
)
async def test_bad_endpoints(web, keys, change: dict[str, Any], code: str) -> None:
    answer = await web.post("/v1/inference/endpoints", json=ENDPOINT | change, headers=headers(keys["operator"]))
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert "canary" not in answer.text


async def test_a_model_is_set_up_listed_and_removed_once(web, keys) -> None:
    operator = keys["operator"]
    once = headers(operator, "same")
    first, again = [await web.post("/v1/inference/endpoints", json=ENDPOINT, headers=once) for _ in range(2)]
    assert (first.status_code, again.status_code, again.headers["idempotent-replayed"]) == (201, 201, "true")
    assert first.json() == again.json()
    assert "canary" not in first.text
    id = first.json()["id"]
    put = await web.put("/v1/inference/models/org/tiny", json={"routes": [{"endpoint": id}]}, headers=headers(operator))
    (route,) = put.json()["routes"]
    assert (put.json()["name"], route["endpoint"], route["upstream_model"], route["weight"]) == ("org/tiny", id, "", 1)
    assert (await web.get("/v1/inference/models", headers=headers(operator))).json() == {"models": [put.json()]}
    changed = await web.put(f"/v1/inference/endpoints/{id}", json=ENDPOINT | {"name": "other"}, headers=headers(operator))
    assert changed.json()["name"] == "other"
    assert (await web.delete(f"/v1/inference/endpoints/{id}", headers=headers(operator))).status_code == 409
    assert (await web.delete("/v1/inference/models/org/tiny", headers=headers(operator))).json()["deleted"]
    assert (await web.delete(f"/v1/inference/endpoints/{id}", headers=headers(operator))).json()["deleted"]


async def test_usage_is_read_with_pages_and_totals(web, keys, login, tenant_a, issue_key, claim) -> None:
    operator, editor = tenant_a.context("operator"), tenant_a.context("editor")
    key = await issue_key(operator, editor)
    await UsageStore(login("usage")).store("gw-1", [claim(editor, key.key_id, model=f"m{n % 2}") for n in range(7)])
    as_operator = headers(keys["operator"])
    first = (await web.get("/v1/usage?limit=4", headers=as_operator)).json()
    second = (await web.get(f"/v1/usage?limit=4&after={first['next_cursor']}", headers=as_operator)).json()
    assert (len(first["records"]), len(second["records"]), second["next_cursor"]) == (4, 3, None)
    totals = (await web.get("/v1/usage/totals?by=model", headers=as_operator)).json()["totals"]
    assert [(row["model"], row["calls"], row["input_tokens"]) for row in totals] == [("m0", 4, 40), ("m1", 3, 30)]
    assert (await web.get("/v1/usage/totals?by=nonsense", headers=as_operator)).json()["code"] == "invalid_group"
    assert (await web.get(f"/v1/usage?session={uuid7()}", headers=as_operator)).json()["records"] == []
    assert (await web.get("/v1/usage?since=2026-01-01T00:00:00", headers=as_operator)).status_code == 400
