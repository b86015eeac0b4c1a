"""The audit log's HTTP routes, in status order: unpermitted, stranger, bad input, then success."""

from __future__ import annotations

from dataclasses import replace

import httpx2
import pytest
from fastapi import FastAPI

from tenon.core.audit import rest
from tenon.core.audit.verification import evidence_packs
from tenon.core.context.contracts import SCOPE_KEY
from tenon.entrypoints.api import problems
from tenon.kit.errors import TenonError
from tenon.kit.ids import uuid7


@pytest.fixture
async def client(audit_log):
    """A client whose `x-who` header names the context."""
    (a, b) = audit_log.contexts
    viewer = replace(a, roles=frozenset({"viewer"}))
    contexts = {
        "auditor": a,
        "b": b,
        "actor": viewer,
        "stranger": replace(viewer, chain=(replace(a.actor, principal=uuid7()),)),
        "base key": replace(a, roles=frozenset({"agent"}), opens_sessions_only=True),
    }
    app = FastAPI()
    app.include_router(rest.router)
    app.state.database = audit_log.database

    @app.exception_handler(TenonError)
    async def refused(_request, error):
        return problems.of_tenon_error(error, "r")

    async def gate(scope, receive, send):
        scope[SCOPE_KEY] = contexts[dict(scope["headers"])[b"x-who"].decode()]
        await app(scope, receive, send)

    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(gate), base_url="http://test") as recorded:
        yield recorded


async def get(client, path: str, who: str = "auditor", **params) -> httpx2.Response:
    return await client.get(f"/v1/audit/{path}", headers={"x-who": who}, params=params)


@pytest.mark.parametrize("path", ["entries", "checkpoint", "consistency", "evidence"])
async def test_403_without_the_right(client, path) -> None:
    assert (await get(client, path, "stranger", old=1)).status_code == 403
    assert (await get(client, path, "base key", old=1)).status_code == 403


async def test_404_for_strangers_other_tenants_and_what_is_not(client, audit_log) -> None:
    (entry,) = await audit_log.signed(audit_log.contexts[0], 1)
    for who, entry_id in (("stranger", entry), ("b", entry), ("base key", entry), ("auditor", uuid7())):
        assert (await get(client, f"receipts/{entry_id}", who)).status_code == 404, who


async def test_before_anything_is_signed(client, audit_log) -> None:
    (entry,) = await audit_log.write(audit_log.contexts[0], 1)
    assert (await get(client, "checkpoint")).status_code == 404
    assert (await get(client, "evidence")).json()["code"] == "receipt_pending"
    assert (await get(client, f"receipts/{entry}")).json()["code"] == "receipt_pending"


@pytest.mark.parametrize(
    ("path", "params"), [("entries", {"after": "x"}), ("consistency", {"old": 10**6}), ("entries", {"after": "WyJ4IixbMV1d"})]
)
async def test_400_for_bad_input(client, audit_log, path, params) -> None:
    await audit_log.signed(audit_log.contexts[0], 1)
    assert (await get(client, path, **params)).status_code == 400


async def test_entries_page_newest_first_without_payloads(client, audit_log) -> None:
    ids = await audit_log.write(audit_log.contexts[0], 5)
    seen, after = [], {}
    while True:
        page = (await get(client, "entries", limit=2, action="thing.change", **after)).json()
        seen += [entry["id"] for entry in page["entries"]]
        assert all("payload" not in entry for entry in page["entries"])
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == [str(entry) for entry in reversed(ids)]
    assert [entry["id"] for entry in (await get(client, "entries", resource_id="t-3")).json()["entries"]] == [str(ids[3])]


@pytest.mark.parametrize("who", ["auditor", "actor"])
async def test_a_receipt_for_auditors_and_for_who_did_it(client, audit_log, tmp_path, who) -> None:
    (entry,) = await audit_log.signed(audit_log.contexts[0], 1)
    answer = await get(client, f"receipts/{entry}", who)
    (tmp_path / "r").write_bytes(answer.content)
    report = evidence_packs.verify_pack(tmp_path / "r", audit_log.public_key)
    assert (answer.status_code, report.ok, report.payloads_missing) == (200, True, 0)


async def test_a_pack_verifies_and_its_export_is_recorded(client, audit_log, tmp_path) -> None:
    await audit_log.signed(audit_log.contexts[0], 3)
    answer = await get(client, "evidence", resource_id="t-1")
    (tmp_path / "p.zip").write_bytes(answer.content)
    report = evidence_packs.verify_pack(tmp_path / "p.zip", audit_log.public_key)
    assert (report.ok, len(report.indices)) == (True, 1)
    assert (await get(client, "entries", action="audit.export")).json()["entries"]
