"""Keys: their format, what they authenticate to, and when they stop."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenon.core import identity
from tenon.core.context import PrincipalKind
from tenon.core.identity import Authenticator, KeyKind, KeyRequest, api_keys
from tenon.kit import clock
from tenon.kit.errors import Forbidden, Invalid, NotFound, TenonError, Unauthenticated
from tenon.kit.ids import BASE62


def test_a_generated_key_parses_to_its_parts() -> None:
    text = api_keys.generate("dev", KeyKind.SERVICE)
    parsed = api_keys.parse(text)
    assert parsed is not None
    assert (parsed.kind, text.split("_")[3], len(parsed.sha256)) == (KeyKind.SERVICE, parsed.key_id, 32)


@given(st.integers(0, 80), st.sampled_from(BASE62))
def test_one_changed_character_is_refused_by_the_checksum(position: int, character: str) -> None:
    text = api_keys.generate("test", KeyKind.USER)
    position %= len(text)
    changed = text[:position] + character + text[position + 1 :]
    assert changed == text or api_keys.parse(changed) is None


def test_the_format_is_the_one_the_gateway_implements() -> None:
    """A fixed vector; gateway/crates/policy holds the same one."""
    head = "tnn_dev_usr_0123456789_" + "A" * 43
    text = head + api_keys._crc(head)
    parsed = api_keys.parse(text)
    assert parsed is not None
    assert text[-6:] == api_keys._crc(head)
    assert api_keys.sha256(text).hex() == parsed.sha256.hex()


async def issue(database, tenant, principal_role="viewer", **fields):  # type: ignore[no-untyped-def]
    ctx = tenant.context("operator")
    target = tenant.context(principal_role)
    kinds = {PrincipalKind.USER: KeyKind.USER, PrincipalKind.AGENT: KeyKind.AGENT}
    request = KeyRequest(target.principal, ctx.project, kinds[target.actor.kind], "test", **fields)
    async with database.tenant(ctx.identity) as session:
        return await identity.create_key(session, ctx, request, environment="test")


async def test_a_key_authenticates_to_its_principal(database, login, tenant_a) -> None:
    key = await issue(database, tenant_a, "editor")
    ctx = await Authenticator(login("auth")).authenticate(key.text, request_id="r1")
    assert (ctx.tenant, ctx.roles, ctx.principal) == (tenant_a.tenant_id, {"editor"}, tenant_a.context("editor").principal)
    assert key.text not in repr(key)


async def test_an_agents_key_acts_for_its_owner_and_opens_sessions_only(database, login, tenant_a) -> None:
    key = await issue(database, tenant_a, "agent")
    ctx = await Authenticator(login("auth")).authenticate(key.text, request_id="r1")
    assert ctx.opens_sessions_only
    assert [actor.name for actor in ctx.chain] == ["agent", "editor"]


@pytest.mark.parametrize("text", ["", "nonsense", "tnn_dev_usr_0123456789_" + "A" * 49])
async def test_what_is_no_key_is_refused_alike(login, text: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await Authenticator(login("auth")).authenticate(text, request_id="r")
    assert refused.value.code == "invalid_api_key"


async def test_a_right_key_id_with_another_secret_is_refused(database, login, tenant_a) -> None:
    key = await issue(database, tenant_a)
    head = key.text[:23] + "".join(reversed(key.text[23:66]))
    with pytest.raises(Unauthenticated):
        await Authenticator(login("auth")).authenticate(head + api_keys._crc(head), request_id="r")


async def test_revoked_expired_and_disabled_stop_within_a_second(database, login, tenant_a, monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = Authenticator(login("auth"))
    operator = tenant_a.context("operator")
    revoked, of_disabled = await issue(database, tenant_a), await issue(database, tenant_a, "approver")
    expired = await issue(database, tenant_a, expires_at=clock.now() + timedelta(hours=1))
    of_agent = await issue(database, tenant_a, "agent")
    for key in (revoked, of_disabled, expired, of_agent):
        await authenticator.authenticate(key.text, request_id="r")
    async with database.tenant(operator.identity) as session:
        await identity.revoke_key(session, operator, revoked.key_id)
        await identity.disable_principal(session, operator, tenant_a.context("approver").principal)
        await identity.disable_principal(session, operator, tenant_a.context("editor").principal)  # the agent's owner
    later = clock.now() + timedelta(hours=2)  # the expiry goes by the wall clock, so no test has to race with it
    monkeypatch.setattr(clock, "now", lambda: later)
    await asyncio.sleep(1.0)  # as long as a key may be remembered
    for key in (revoked, of_disabled, expired, of_agent):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(key.text, request_id="r")


async def test_only_operators_manage_keys_and_principals(database, tenant_a) -> None:
    for role in ("viewer", "editor", "approver", "agent"):
        ctx = tenant_a.context(role)
        async with database.tenant(ctx.identity) as session:
            with pytest.raises(Forbidden):
                await identity.list_keys(session, ctx)
            with pytest.raises(Forbidden):
                await identity.create_principal(session, ctx, name="x", kind=PrincipalKind.USER, roles=frozenset({"operator"}))


async def test_strangers_and_bad_input(database, tenant_a, tenant_b) -> None:
    key = await issue(database, tenant_a)
    ctx = tenant_b.context("operator")
    refusals: list[tuple[type[TenonError], str]] = []
    async with database.tenant(ctx.identity) as session:
        with pytest.raises(NotFound) as no_key:
            await identity.revoke_key(session, ctx, key.key_id)
        with pytest.raises(NotFound) as no_principal:
            await identity.find_principal(session, ctx, id=tenant_a.context("viewer").principal)
        with pytest.raises(Invalid) as role:
            await identity.create_principal(session, ctx, name="x", kind=PrincipalKind.USER, roles=frozenset({"king"}))
        with pytest.raises(Invalid) as agent:
            await identity.create_principal(session, ctx, name="x", kind=PrincipalKind.AGENT, roles=frozenset({"agent"}))
    refusals = [(type(one.value), one.value.code) for one in (no_key, no_principal, role, agent)]
    assert [code for _, code in refusals] == ["api_key_not_found", "principal_not_found", "unknown_role", "agent_needs_owner"]
