"""Quarantined records: seen by their tenant's operators, booked once when one of them says so."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from tenon.inference.usage import Receipt, UsageFilter, UsageStore, read_records
from tenon.inference.usage.tasks import quarantine_release_task
from tenon.kit import clock
from tenon.kit.ids import uuid7


def headers(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "idempotency-key": str(uuid4())}


@pytest.fixture
async def kept(login, tenant_a, issue_key, claim):
    """A record of a day far off, one that is not its key's, and the store they came to."""
    operator, editor = tenant_a.context("operator"), tenant_a.context("editor")
    key = await issue_key(operator, editor)
    far = UUID(int=uuid7().int + (40 * 86_400_000 << 80))
    other = claim(editor, key.key_id, principal_id=str(uuid4()))
    record = claim(editor, key.key_id, id=far, input_tokens=77)
    store = UsageStore(login("usage"))
    assert await store.store("gw-1", [record, other]) == Receipt(0, 0, 2)
    return store, record


async def test_an_operator_releases_a_record_and_it_is_booked_once(kept, web, keys, login, database, tenant_a) -> None:
    store, record = kept
    operator = tenant_a.context("operator")
    as_operator = headers(keys["operator"])
    listed = (await web.get("/v1/usage/quarantine", headers=as_operator)).json()["records"]
    by_reason = {row["reason"]: row for row in listed}
    assert by_reason.keys() == {"other_day", "key_mismatch"}
    assert by_reason["key_mismatch"]["claim"] is None, "what is not proven to be ours is not shown"
    assert by_reason["other_day"]["claim"]["input_tokens"] == 77
    where = f"/v1/usage/quarantine/{by_reason['other_day']['raw_sha256']}/release"
    for _ in range(2):
        assert (await web.post(where, headers=headers(keys["operator"]))).status_code == 202
    book = quarantine_release_task(login("usage"))
    assert [await book(), await book()] == [1, 0]
    assert await store.store("gw-1", [record]) == Receipt(0, 0, 1), "shipped again, it stays what it is"
    assert await book() == 0
    async with database.tenant(operator.identity) as session:
        (booked,) = (await read_records(session, operator, UsageFilter(since=clock.now() - timedelta(days=1)))).records
        hours = await session.scalar("select sum(input_tokens) from tenon.usage_hour")
        entries = await session.rows("select decision from tenon.audit_entry where action = 'usage.release'")
    assert (booked["input_tokens"], hours, len(entries)) == (77, 77, 2)
    (row,) = [row for row in (await web.get("/v1/usage/quarantine", headers=as_operator)).json()["records"] if row["reason"] == "other_day"]
    assert row["released_as"] == str(booked["record_id"])


async def test_only_its_own_operators_release_and_only_another_day(kept, web, keys) -> None:
    listed = (await web.get("/v1/usage/quarantine", headers=headers(keys["operator"]))).json()["records"]
    by_reason = {row["reason"]: f"/v1/usage/quarantine/{row['raw_sha256']}/release" for row in listed}
    assert (await web.post(by_reason["other_day"])).status_code == 401
    assert (await web.post(by_reason["other_day"], headers=headers(keys["stranger"]))).status_code == 404
    assert (await web.post(by_reason["other_day"], headers=headers(keys["viewer"]))).status_code == 403
    assert (await web.get("/v1/usage/quarantine", headers=headers(keys["viewer"]))).status_code == 403
    assert (await web.get("/v1/usage/quarantine", headers=headers(keys["stranger"]))).json() == {"records": []}
    refused = await web.post(by_reason["key_mismatch"], headers=headers(keys["operator"]))
    assert (refused.status_code, refused.json()["code"]) == (409, "not_releasable")
    assert (await web.post("/v1/usage/quarantine/x/release", headers=headers(keys["operator"]))).status_code == 400
