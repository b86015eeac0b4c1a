"""A change is rehearsed: what it would make different is said, what would refuse it refuses, and nothing stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tenon.core.identity import KeyScope
from tenon.inference.models import dry_run_diff

ENDPOINT = {"name": "engine", "base_url": "https://models.example.com/v1", "cleared_markings": ["pii"]}


@pytest.fixture
async def call(web, keys):
    """`call(method, path, json, dry_run=…)` as the operator."""

    async def send(method: str, path: str, json: Any = None, *, dry_run: bool = False, key: str = "operator") -> Any:
        headers = {"authorization": f"Bearer {keys[key]}", "idempotency-key": str(uuid4())}
        return await web.request(method, path + ("?dry_run=true" if dry_run else ""), json=json, headers=headers)

    return send


@pytest.fixture
async def two(call) -> tuple[str, str]:
    """Ids of an endpoint that is cleared for `pii` and one that is not, both behind the model m."""
    cleared = (await call("POST", "/v1/inference/endpoints", ENDPOINT)).json()["id"]
    plain = (await call("POST", "/v1/inference/endpoints", ENDPOINT | {"name": "plain", "cleared_markings": []})).json()["id"]
    routes = {"routes": [{"endpoint": cleared}, {"endpoint": plain}]}
    assert (await call("PUT", "/v1/inference/models/m", routes)).status_code == 200
    return cleared, plain


async def everything(database, tenant) -> dict[str, Any]:
    async with database.tenant(tenant.context("operator").identity) as session:
        tables = ("endpoint", "model", "model_route", "rate_limit", "audit_entry", "idempotency")
        counts = {table: await session.scalar(f"select count(*) from tenon.{table}") for table in tables}
        revisions = {table: await session.scalar(f"select revision from tenon.{table}") for table in ("routing", "governance")}
        return counts | revisions


async def test_who_loses_what_when_an_endpoint_goes_out_of_a_model(call, two, issue_key, tenant_a) -> None:
    cleared, plain = two
    operator, editor = tenant_a.context("operator"), tenant_a.context("editor")
    bound = await issue_key(operator, editor, allowed_models=("m",), ceiling=frozenset({"pii"}))
    free = await issue_key(operator, editor, allowed_models=("m",))
    elsewhere = await issue_key(operator, editor, allowed_models=("other",), ceiling=frozenset({"pii"}))
    embedder = await issue_key(operator, editor, ceiling=frozenset({"pii"}), scope=KeyScope(operations=("embedding",)))
    answer = await call("PUT", "/v1/inference/models/m", {"routes": [{"endpoint": plain}]}, dry_run=True)
    assert answer.status_code == 200, answer.text
    answered = answer.json()
    assert (answered["dry_run"], answered["would_answer"], answered["difference"]["endpoints"]) == (True, 200, [])
    (model,) = answered["difference"]["models"]
    assert (model["name"], model["change"], model["endpoints_gained"]) == ("m", "changed", [])
    assert model["endpoints_lost"] == [{"id": cleared, "name": "engine"}]
    losers = {key: caller for caller in answered["difference"]["callers"] for key in caller["newest_keys"]}
    assert set(losers) == {bound.key_id, embedder.key_id}
    assert free.key_id not in losers
    assert elsewhere.key_id not in losers
    assert losers[bound.key_id]["loses_every_route"]
    assert "chat" in losers[bound.key_id]["operations_lost"]
    assert losers[embedder.key_id]["operations_lost"] == ["embedding"]


async def test_another_protocol_takes_operations_away_from_everybody(call, two, issue_key, tenant_a) -> None:
    _, plain = two
    free = await issue_key(tenant_a.context("operator"), tenant_a.context("editor"))
    assert (await call("PUT", "/v1/inference/models/m", {"routes": [{"endpoint": plain}]})).status_code == 200
    changed = ENDPOINT | {"name": "plain", "cleared_markings": [], "protocol": "anthropic"}
    answered = (await call("PUT", f"/v1/inference/endpoints/{plain}", changed, dry_run=True)).json()["difference"]
    (endpoint,) = answered["endpoints"]
    assert endpoint["fields"] == {"protocol": {"before": "openai", "after": "anthropic"}}
    (caller,) = [caller for caller in answered["callers"] if free.key_id in caller["newest_keys"]]
    assert "embedding" in caller["operations_lost"]
    assert caller["operations_gained"] == ["count_tokens"]
    assert not caller["loses_every_route"]


async def test_nothing_stays_of_a_dry_run(call, two, database, tenant_a) -> None:
    cleared, _ = two
    limit = {"subject": "tenant", "requests_per_minute": 5}
    limit_id = (await call("POST", "/v1/limits", limit)).json()["id"]
    before = await everything(database, tenant_a)
    model = {"routes": [{"endpoint": cleared}]}
    for method, path, body in (
        ("POST", "/v1/inference/endpoints", ENDPOINT | {"name": "new"}), ("PUT", f"/v1/inference/endpoints/{cleared}", ENDPOINT),
        ("PUT", "/v1/inference/models/m", model), ("PUT", "/v1/inference/models/new", model), ("DELETE", "/v1/inference/models/m", None),
        ("POST", "/v1/limits", {"subject": "model", "subject_id": "m", "concurrency": 1}), ("PUT", f"/v1/limits/{limit_id}", limit),
        ("DELETE", f"/v1/limits/{limit_id}", None),
    ):  # fmt: skip
        answer = await call(method, path, body, dry_run=True)
        assert answer.status_code == 200, f"{method} {path} {answer.text}"
    assert await everything(database, tenant_a) == before


async def test_a_limit_is_seen_before_it_is_changed(call) -> None:
    existing = (await call("POST", "/v1/limits", {"subject": "tenant", "requests_per_minute": 5})).json()
    answer = await call("PUT", f"/v1/limits/{existing['id']}", {"subject": "tenant", "requests_per_minute": 2}, dry_run=True)
    (limit,) = answer.json()["difference"]["limits"]
    assert (limit["before"], limit["after"]["requests_per_minute"]) == (existing, 2)
    gone = await call("DELETE", f"/v1/limits/{existing['id']}", dry_run=True)
    assert gone.json()["difference"]["limits"] == [{"before": existing, "after": None}]


@pytest.mark.parametrize(
    ("status", "key", "method", "path", "body"),
    [
        (404, "stranger", "DELETE", "/v1/inference/models/m", None),
        (403, "viewer", "DELETE", "/v1/inference/models/m", None),
        (400, "operator", "PUT", "/v1/inference/models/m", {"routes": [{"endpoint": str(uuid4())}]}),
        (400, "operator", "POST", "/v1/limits", {"subject": "tenant"}),
        (409, "operator", "DELETE", "/v1/inference/endpoints/{cleared}", None),
    ],
)
async def test_what_refuses_a_change_refuses_its_dry_run(call, two, status: int, key: str, method: str, path: str, body: Any) -> None:
    answer = await call(method, path.format(cleared=two[0]), body, dry_run=True, key=key)
    assert answer.status_code == status, answer.text


def test_the_gateways_table_is_the_same() -> None:
    contract = json.loads((Path(__file__).parents[4] / "contracts" / "served.json").read_text())
    assert {name: sorted(operations) for name, operations in dry_run_diff._SERVED.items()} == {
        name: operations for name, operations in contract.items() if name != "about"
    }
