"""Ceilings: within the clearance, fixed, and no way down without an operator."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from tenon.agents import sessions
from tenon.agents.sessions import SessionRequest
from tenon.core import identity
from tenon.core.context import Context
from tenon.core.identity import Authenticator, IssuedKey, KeyKind, KeyRequest
from tenon.kit import clock
from tenon.kit.errors import Conflict, Forbidden, Invalid, NotFound, TenonError, Unauthenticated

PII, FLEET, NONE = frozenset({"pii"}), frozenset({"fleet_confidential"}), frozenset[str]()


class Agents:
    """What an agent and its operator do, each step one transaction."""

    def __init__(self, database, login, tenant) -> None:
        self.database, self.tenant, self.authenticator = database, tenant, Authenticator(login("auth"))
        self.operator: Context = tenant.context("operator")

    async def base(self, **limits) -> Context:
        """The context that a fresh base key of the agent authenticates to."""
        agent = self.tenant.context("agent")
        async with self.database.tenant(self.operator.identity) as session:
            request = KeyRequest(agent.principal, agent.project, KeyKind.AGENT, "base")
            key = await identity.create_key(session, self.operator, replace(request, **limits))
        return await self.who(key)

    async def who(self, key: IssuedKey) -> Context:
        return await self.authenticator.authenticate(key.text, request_id="test")

    async def open(self, ctx: Context, ceiling: frozenset[str], ttl: timedelta = timedelta(hours=1)):
        async with self.database.tenant(ctx.identity) as session:
            return await sessions.open_session(session, ctx, SessionRequest(ceiling, "test", ttl))

    async def close(self, ctx: Context, id) -> None:
        async with self.database.tenant(ctx.identity) as session:
            await sessions.close_session(session, ctx, id)

    async def permit(self, ctx: Context, ceiling: frozenset[str]) -> None:
        async with self.database.tenant(ctx.identity) as session:
            await sessions.permit_lower_session(session, ctx, self.tenant.context("agent").principal, ceiling, "because")


@pytest.fixture
def agents(database, login, tenant_a) -> Agents:
    return Agents(database, login, tenant_a)


async def refused(awaitable) -> str:
    with pytest.raises(TenonError) as caught:
        await awaitable
    return caught.value.code


async def test_a_sessions_key_sees_its_ceiling_and_acts_for_the_owner(agents, tenant_a) -> None:
    base = await agents.base(strict=True, allowed_models=("tiny",))
    opened, key = await agents.open(base, PII)
    ctx = await agents.who(key)
    assert (ctx.clearance, ctx.session, ctx.roles, ctx.opens_sessions_only) == (PII, opened.id, frozenset({"agent"}), False)
    assert [actor.principal for actor in ctx.chain] == [base.principal, tenant_a.context("editor").principal]
    async with agents.database.tenant(ctx.identity) as session:
        limits = await identity.own_key(session, ctx)
    assert (limits.strict, limits.allowed_models, limits.expires_at) == (True, ("tiny",), opened.expires_at)


async def test_a_base_key_only_opens_sessions_and_a_session_opens_none(agents) -> None:
    base = await agents.base()
    async with agents.database.tenant(base.identity) as session:
        with pytest.raises(Forbidden):
            await sessions.list_sessions(session, base)
    _, key = await agents.open(base, NONE)
    assert await refused(agents.open(await agents.who(key), PII)) == "base_key_needed"
    assert await refused(agents.open(agents.operator, NONE)) == "not_permitted"


async def test_a_ceiling_is_within_the_clearance_of_agent_and_owner(agents, database, tenant_a) -> None:
    assert await refused(agents.open(await agents.base(), frozenset({"top_secret"}))) == "ceiling_above_clearance"
    async with database.tenant(agents.operator.identity) as session:
        await session.execute("update tenon.principal set clearance = '{pii}' where id = :id", {"id": tenant_a.context("editor").principal})
    assert await refused(agents.open(await agents.base(), FLEET)) == "ceiling_above_clearance"
    await agents.open(await agents.base(), PII)


@pytest.mark.parametrize(
    ("ceiling", "ttl"), [({"Not a marking"}, 3_600), ({f"m{n}" for n in range(65)}, 3_600), (set(), 59), (set(), 86_401)]
)
async def test_bad_input_is_refused(agents, ceiling: set[str], ttl: int) -> None:
    with pytest.raises(Invalid):
        await agents.open(await agents.base(), frozenset(ceiling), timedelta(seconds=ttl))


async def test_a_lower_ceiling_needs_an_operators_permit_which_serves_once(agents) -> None:
    base = await agents.base()
    opened, _ = await agents.open(base, PII)
    with pytest.raises(Forbidden) as caught:
        await agents.open(base, NONE)
    assert (caught.value.code, caught.value.details) == ("lower_ceiling", {"missing": ["pii"]})
    assert caught.value.repair
    await agents.close(base, opened.id)
    assert await refused(agents.open(base, NONE)) == "lower_ceiling"
    assert await refused(agents.permit(base, NONE)) == "not_permitted"
    assert await refused(agents.permit(agents.tenant.context("editor"), NONE)) == "not_permitted"
    await agents.permit(agents.operator, NONE)
    lower, _ = await agents.open(base, NONE)
    await agents.close(base, lower.id)
    assert await refused(agents.open(base, NONE)) == "lower_ceiling"
    await agents.open(base, PII | FLEET)  # above both: always


async def test_a_permit_is_for_exactly_its_ceiling(agents) -> None:
    base = await agents.base()
    await agents.open(base, PII | FLEET)
    await agents.permit(agents.operator, PII)
    assert await refused(agents.open(base, NONE)) == "lower_ceiling"
    assert await refused(agents.open(base, FLEET)) == "lower_ceiling"
    await agents.open(base, PII)


async def test_after_the_window_the_ceiling_is_free_again(agents, monkeypatch) -> None:
    base = await agents.base()
    await agents.open(base, PII)  # ends after an hour
    started = clock.now()
    monkeypatch.setattr(clock, "now", lambda: started + timedelta(hours=24, minutes=59))
    assert await refused(agents.open(base, NONE)) == "lower_ceiling"
    monkeypatch.setattr(clock, "now", lambda: started + timedelta(hours=25, minutes=1))
    await agents.open(base, NONE)


async def test_no_session_opens_above_an_open_lower_one(agents) -> None:
    """Else what it reads is pasted into the one below, which is open already."""
    base = await agents.base()
    lower, _ = await agents.open(base, NONE)
    with pytest.raises(Conflict) as caught:
        await agents.open(base, PII)
    assert (caught.value.code, caught.value.details) == ("lower_session_open", {"sessions": [str(lower.id)]})
    await agents.close(base, lower.id)
    await agents.open(base, PII)


async def test_two_openings_at_once_cannot_miss_each_other(agents) -> None:
    base = await agents.base()
    tried = await asyncio.gather(*(agents.open(base, ceiling) for ceiling in (PII, NONE, PII, NONE)), return_exceptions=True)
    ceilings = {result[0].ceiling for result in tried if not isinstance(result, BaseException)}
    assert len(ceilings) == 1


async def test_a_closed_sessions_key_is_dead(agents) -> None:
    base = await agents.base()
    opened, key = await agents.open(base, NONE)
    ctx = await agents.who(key)
    await agents.close(ctx, opened.id)
    fresh = Authenticator(agents.authenticator._auth)
    with pytest.raises(Unauthenticated):
        await fresh.authenticate(key.text, request_id="test")


async def test_a_session_dies_with_the_key_that_opened_it(agents, database) -> None:
    base = await agents.base()
    opened, key = await agents.open(base, NONE)
    async with database.tenant(agents.operator.identity) as session:
        await identity.revoke_key(session, agents.operator, base.key_id)
    with pytest.raises(Unauthenticated):
        await agents.who(key)
    async with database.tenant(agents.operator.identity) as session:
        (listed,), _ = await sessions.list_sessions(session, agents.operator)
    assert listed.id == opened.id
    assert listed.closed_at is not None


async def test_a_session_never_outlives_the_base_key(agents) -> None:
    soon = clock.now() + timedelta(minutes=10)
    opened, key = await agents.open(await agents.base(expires_at=soon), NONE)
    assert opened.expires_at == soon
    assert key.expires_at == soon


async def test_strangers_do_not_see_sessions(agents, tenant_a, tenant_b) -> None:
    opened, _ = await agents.open(await agents.base(), NONE)
    for ctx in (tenant_b.context("operator"), tenant_a.context("viewer"), tenant_a.agent_session_context()):
        with pytest.raises(NotFound):
            await agents.close(ctx, opened.id)
    async with agents.database.tenant(tenant_b.context("operator").identity) as session:
        assert await sessions.list_sessions(session, tenant_b.context("operator")) == ([], None)
