"""Endpoints and models: who may, what is refused, and that a credential never comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tenon.inference import models
from tenon.inference.models import EndpointDraft, EndpointSettings, Model, Route, Timeouts
from tenon.inference.models.credential_sealing import SealingKey
from tenon.kit.errors import Conflict, Forbidden, Invalid, NotFound, TenonError, Unavailable
from tenon.kit.ids import uuid7

DRAFT = EndpointDraft("engine", "https://models.example.com/v1", credential="sk-canary")


@pytest.fixture
def installation(settings) -> EndpointSettings:
    return EndpointSettings.of(settings)


@pytest.mark.parametrize("role", ["viewer", "editor", "approver"])
async def test_only_operators_manage_models(database, tenant_a, installation, role: str) -> None:
    ctx = tenant_a.context(role)
    async with database.tenant(ctx.identity) as session:
        for attempt in (
            lambda: models.create_endpoint(session, ctx, DRAFT, installation), lambda: models.list_endpoints(session, ctx),
            lambda: models.put_model(session, ctx, Model("m", (Route(uuid7()),))), lambda: models.list_models(session, ctx),
            lambda: models.delete_endpoint(session, ctx, uuid7()), lambda: models.delete_model(session, ctx, "m"),
        ):  # fmt: skip
            with pytest.raises(Forbidden):
                await attempt()


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "Not a name"}, "name"),
        ({"base_url": "http://169.254.169.254/"}, "base_url"),
        ({"cleared_markings": frozenset({"NOT"})}, "cleared_markings"),
        ({"timeouts": Timeouts(idle_ms=-1)}, "timeouts.idle_ms"),
        ({"timeouts": Timeouts(total_ms=3_600_001)}, "timeouts.total_ms"),
        ({"credential": "two\r\nlines"}, "credential"),
        ({"credential": "x" * 4_097}, "credential"),
    ],
)
async def test_bad_endpoints_are_refused_with_the_path(database, tenant_a, installation, change, path: str) -> None:
    ctx = tenant_a.context("operator")
    async with database.tenant(ctx.identity) as session:
        with pytest.raises(Invalid) as caught:
            await models.create_endpoint(session, ctx, replace(DRAFT, **change), installation)
    assert caught.value.path == path


async def test_an_endpoint_is_created_changed_and_removed(database, tenant_a, installation) -> None:
    ctx = tenant_a.context("operator")
    async with database.tenant(ctx.identity) as session:
        created = await models.create_endpoint(session, ctx, DRAFT, installation)
        assert created.has_credential
        with pytest.raises(Conflict):
            await models.create_endpoint(session, ctx, DRAFT, installation)
        kept = await models.replace_endpoint(session, ctx, created.id, replace(DRAFT, credential=None, name="other"), installation)
        assert (kept.name, kept.has_credential) == ("other", True)
        removed = await models.replace_endpoint(session, ctx, created.id, replace(DRAFT, credential=""), installation)
        assert not removed.has_credential
        await models.put_model(session, ctx, Model("org/m", (Route(created.id, weight=2), Route(created.id, "n"))))
        with pytest.raises(Conflict) as caught:
            await models.delete_endpoint(session, ctx, created.id)
        assert caught.value.details == {"models": ["org/m"]}
        assert await models.list_models(session, ctx) == [Model("org/m", (Route(created.id, "", 2), Route(created.id, "n", 1)))]
        await models.delete_model(session, ctx, "org/m")
        await models.delete_endpoint(session, ctx, created.id)
        assert await models.list_endpoints(session, ctx) == []
        for gone in (
            models.delete_endpoint(session, ctx, created.id), models.find_endpoint(session, ctx, created.id), models.delete_model(session, ctx, "m"),
        ):  # fmt: skip
            with pytest.raises(NotFound):
                await gone


async def test_a_credential_never_comes_out_of_the_database(database, tenant_a, installation) -> None:
    ctx = tenant_a.context("operator")
    async with database.tenant(ctx.identity) as session:
        created = await models.create_endpoint(session, ctx, DRAFT, installation)
        assert "canary" not in repr(created) + repr(DRAFT)
        payloads = await session.rows("select payload from tenon.audit_payload")
        assert "canary" not in repr(
            [bytes(row["payload"]) if isinstance(row["payload"], memoryview) else row["payload"] for row in payloads]
        )
        with pytest.raises(Exception, match="permission denied"):
            await session.rows("select sealed_credential from tenon.endpoint")


async def test_another_tenants_endpoints_do_not_exist(database, tenant_a, tenant_b, installation) -> None:
    ours, theirs = tenant_a.context("operator"), tenant_b.context("operator")
    async with database.tenant(ours.identity) as session:
        created = await models.create_endpoint(session, ours, DRAFT, installation)
    async with database.tenant(theirs.identity) as session:
        assert await models.list_endpoints(session, theirs) == []
        for attempt in (
            models.find_endpoint(session, theirs, created.id), models.replace_endpoint(session, theirs, created.id, DRAFT, installation),
            models.delete_endpoint(session, theirs, created.id), models.put_model(session, theirs, Model("m", (Route(created.id),))),
        ):  # fmt: skip
            with pytest.raises(TenonError) as caught:
                await attempt
            assert caught.value.code in {"endpoint_not_found", "unknown_endpoint"}


@pytest.mark.parametrize("routes", [(), tuple(Route(uuid7()) for _ in range(17)), (Route(uuid7(), weight=0),), (Route(uuid7(), "a b"),)])
async def test_bad_routes_are_refused(database, tenant_a, routes) -> None:
    ctx = tenant_a.context("operator")
    async with database.tenant(ctx.identity) as session:
        with pytest.raises(Invalid):
            await models.put_model(session, ctx, Model("m", routes))


def test_a_sealed_credential_opens_only_for_its_endpoint(tmp_path: Path) -> None:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    raw, id = bytes(range(32)), uuid7()
    (tmp_path / "raw").write_bytes(raw)
    (tmp_path / "hex").write_text(raw.hex() + "\n")
    for name in ("raw", "hex"):
        sealed = SealingKey.read(tmp_path / name).seal("secret", id)
        assert AESGCM(raw).decrypt(sealed[:12], sealed[12:], str(id).encode()) == b"secret"
        with pytest.raises(InvalidTag):
            AESGCM(raw).decrypt(sealed[:12], sealed[12:], str(uuid7()).encode())
    (tmp_path / "short").write_bytes(b"x" * 31)
    for name in ("short", "absent"):
        with pytest.raises(Unavailable):
            SealingKey.read(tmp_path / name)
