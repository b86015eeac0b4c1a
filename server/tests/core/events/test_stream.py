"""GET /v1/events against a real server: status order, replay, live, filters, ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from tenon.core import events
from tenon.core.context import Context
from tenon.core.context.contracts import SCOPE_KEY
from tenon.core.events import feed, rest
from tenon.core.events.contracts import Event
from tenon.entrypoints.api import problems
from tenon.kit.errors import TenonError
from tools.testing.ports import free_port


class WhoIsThere:
    """Authentication's place in a test: the header names a prepared context."""

    def __init__(self, app, contexts: dict[str, Context]) -> None:
        self.app, self.contexts = app, contexts

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http":
            scope[SCOPE_KEY] = self.contexts[dict(scope["headers"])[b"x-who"].decode()]
        await self.app(scope, receive, send)


@dataclass
class Api:
    client: httpx2.AsyncClient
    app: FastAPI
    contexts: dict[str, Context]

    async def subjects(self, count: int, who: str = "viewer", **kwargs) -> list[tuple[str, str]]:
        """(cursor, subject) of the first `count` events of a stream."""
        collected, cursor = [], ""
        async with asyncio.timeout(10), self.client.stream("GET", "/v1/events", headers={"x-who": who, **kwargs.pop("headers", {})},
                                                           params=kwargs) as answer:  # fmt: skip
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    cursor = line[4:]
                if line.startswith("data: "):
                    collected.append((cursor, json.loads(line[6:])["subject"]))
                if len(collected) == count:
                    break
        return collected


@pytest.fixture
async def api(database, tenant_a, tenant_b) -> AsyncIterator[Api]:
    contexts = {role: tenant_a.context(role) for role in ("viewer", "agent")}
    contexts |= {"low": replace(contexts["viewer"], clearance=frozenset()), "b": tenant_b.context("viewer")}
    app = FastAPI()
    app.include_router(rest.router)
    app.state.database, app.state.stopping = database, asyncio.Event()

    @app.exception_handler(TenonError)
    async def refused(_request, error):
        return problems.of_tenon_error(error, "r")

    app.add_exception_handler(problems.RequestValidationError, problems.of_validation_error)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(WhoIsThere(app, contexts), port=port, log_config=None, lifespan="off", timeout_graceful_shutdown=5)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        yield Api(client, app, contexts)
    app.state.stopping.set()
    server.should_exit = True
    await serving


async def publish(api: Api, database, *subjects: str, who: str = "viewer", **kwargs) -> None:
    ctx = api.contexts[who]
    async with database.tenant(ctx.identity) as session:
        for subject in subjects:
            await events.publish(session, ctx, Event("tenon.thing.changed.v1", subject, **kwargs))


async def test_403_without_the_right_and_4xx_for_bad_input(api) -> None:
    assert (await api.client.get("/v1/events", headers={"x-who": "agent"})).status_code == 403
    for params in ({"after": "x"}, {"type": "; drop"}, {"limit": "0", "format": "json"}, {"format": "xml"}):
        assert (await api.client.get("/v1/events", headers={"x-who": "viewer"}, params=params)).status_code == 400, params


async def test_a_stream_replays_and_then_goes_on_live(api, database) -> None:
    await publish(api, database, *(f"old-{n}" for n in range(3)))
    reading = asyncio.create_task(api.subjects(6, after="beginning"))
    await asyncio.sleep(0.6)
    await publish(api, database, "new-0")
    await asyncio.sleep(0.3)
    await publish(api, database, "new-1", "new-2")
    assert [subject for _, subject in await reading] == ["old-0", "old-1", "old-2", "new-0", "new-1", "new-2"]


async def test_a_stream_without_a_cursor_begins_with_new_events(api, database) -> None:
    await publish(api, database, "old")
    reading = asyncio.create_task(api.subjects(1))
    await asyncio.sleep(0.5)
    await publish(api, database, "new")
    assert [subject for _, subject in await reading] == ["new"]


async def test_last_event_id_goes_on_exactly_behind_that_event(api, database) -> None:
    await publish(api, database, *(f"e-{n}" for n in range(5)))
    first = await api.subjects(2, after="beginning")
    rest_of_it = await api.subjects(3, headers={"Last-Event-ID": first[-1][0]})
    assert [subject for _, subject in first + rest_of_it] == [f"e-{n}" for n in range(5)]


async def test_reconnecting_at_random_never_loses_or_repeats(api, database) -> None:
    async def writing() -> None:
        for n in range(60):
            await publish(api, database, f"e-{n}")
            await asyncio.sleep(0.01)

    writer, seen = asyncio.create_task(writing()), await api.subjects(1, after="beginning")
    while len(seen) < 60:
        seen += await api.subjects(min(7, 60 - len(seen)), headers={"Last-Event-ID": seen[-1][0]})
    await writer
    assert [subject for _, subject in seen] == [f"e-{n}" for n in range(60)]


async def test_clearance_tenant_and_type_decide_what_a_stream_holds(api, database) -> None:
    await publish(api, database, "secret", markings=frozenset({"pii"}))
    await publish(api, database, "of-b", who="b")
    await publish(api, database, "open")
    assert [subject for _, subject in await api.subjects(1, who="low", after="beginning")] == ["open"]
    assert [subject for _, subject in await api.subjects(1, who="b", after="beginning")] == ["of-b"]
    assert [subject for _, subject in await api.subjects(1, after="beginning", type="tenon.thing.*")] == ["secret"]
    answer = await api.client.get("/v1/events", headers={"x-who": "low"}, params={"format": "json"})
    assert [event["subject"] for event in answer.json()["events"]] == ["open"]


async def test_polling_pages_go_on_from_next(api, database) -> None:
    await publish(api, database, *(f"e-{n}" for n in range(5)))
    seen, after = [], "beginning"
    while True:
        page = (
            await api.client.get("/v1/events", headers={"x-who": "viewer"}, params={"format": "json", "limit": 2, "after": after})
        ).json()
        seen += [event["subject"] for event in page["events"]]
        after = page["next"]
        if page["is_last"]:
            break
    assert seen == [f"e-{n}" for n in range(5)]


async def test_a_quiet_stream_beats_and_its_cursor_moves_on(api, database, monkeypatch) -> None:
    monkeypatch.setattr(rest, "HEARTBEAT_SECONDS", 0.3)
    async with asyncio.timeout(8), api.client.stream("GET", "/v1/events", headers={"x-who": "viewer"}) as answer:
        lines = [line async for line in _first(answer.aiter_lines(), 12)]
    cursors = [line for line in lines if line.startswith("id: ")]
    assert lines.count(": heartbeat") >= 2
    assert len(cursors) >= 2


async def _first(lines, count: int):
    async for line in lines:
        yield line
        count -= 1
        if not count:
            return


async def test_a_stream_ends_with_its_authority(api, monkeypatch) -> None:
    monkeypatch.setattr(rest, "AUTHORITY_SECONDS", 0.2)
    valid = [True]

    async def reauthenticate(ctx: Context) -> bool:
        return valid[0]

    api.app.state.reauthenticate = reauthenticate
    async with asyncio.timeout(8), api.client.stream("GET", "/v1/events", headers={"x-who": "viewer"}) as answer:
        asyncio.get_running_loop().call_later(0.5, valid.clear)
        asyncio.get_running_loop().call_later(0.5, valid.append, False)
        text = (await answer.aread()).decode()
    assert "authority of this stream has ended" in text


async def test_a_stream_ends_when_the_server_stops(api) -> None:
    async with asyncio.timeout(5), api.client.stream("GET", "/v1/events", headers={"x-who": "viewer"}) as answer:
        asyncio.get_running_loop().call_later(0.3, api.app.state.stopping.set)
        await answer.aread()


async def test_streams_of_a_tenant_are_bounded_and_given_back(api, monkeypatch) -> None:
    monkeypatch.setattr(feed, "STREAMS_PER_TENANT_MAX", 1)
    async with api.client.stream("GET", "/v1/events", headers={"x-who": "viewer"}) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        refused = await api.client.get("/v1/events", headers={"x-who": "viewer"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        async with api.client.stream("GET", "/v1/events", headers={"x-who": "b"}) as other:
            assert other.status_code == 200
    async with asyncio.timeout(5):
        while api.app.state.event_feeds._of_tenant:
            await asyncio.sleep(0.05)
    assert feed.STREAMS._value.get() == 0


async def test_a_stream_outlives_more_events_than_memory_keeps(api, database, monkeypatch) -> None:
    monkeypatch.setattr(feed, "KEPT_EVENTS_MAX", 3)
    reading = asyncio.create_task(api.subjects(20))
    await asyncio.sleep(0.5)
    await publish(api, database, *(f"e-{n}" for n in range(20)))
    assert [subject for _, subject in await reading] == [f"e-{n}" for n in range(20)]
