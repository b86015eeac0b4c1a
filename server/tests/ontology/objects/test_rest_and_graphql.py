"""REST and GraphQL as callers use them, through the real application: anonymous 401, stranger 404, unpermitted 403, bad input 400, then success."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from shop_tenant import Shop, fill

from tenon.core import identity
from tenon.core.context import Context
from tenon.core.identity import KeyKind, KeyRequest
from tenon.entrypoints.api.app import build
from tenon.kit.database import Database
from tenon.kit.settings import Settings


@dataclass
class Client:
    """Requests of one principal."""

    http: httpx2.AsyncClient
    key: str

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(path, headers={"authorization": f"Bearer {self.key}", **headers})

    async def query(self, body: Any, **headers: str) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"authorization": f"Bearer {self.key}", "content-type": "application/json", **headers}
        return await self.http.post("/v1/graphql", content=content, headers=sent)


@pytest.fixture
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Database]]:
    """The databases an application opens. Its lifespan is not run (it belongs to one task), so they are closed here."""
    databases: list[Database] = []

    def make(*arguments: Any, **options: Any) -> Database:
        databases.append(Database(*arguments, **options))
        return databases[-1]

    monkeypatch.setattr("tenon.entrypoints.api.app.Database", make)
    yield databases
    for database in databases:
        await database.close()


@pytest.fixture
async def app(settings: Settings, opened: list[Database]) -> AsyncIterator[FastAPI]:
    app = build(settings.model_copy(update={"environment": "development"}))
    yield app
    await app.state.lane.close()


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        yield client


async def key_for(login: Callable[[str], Database], operator: Context, who: Context, kind: KeyKind = KeyKind.USER) -> str:
    assert operator.project is not None
    async with login("api").tenant(operator.identity) as session:
        return (
            await identity.create_key(session, operator, KeyRequest(who.principal, operator.project, kind, "test"), environment="test")
        ).text


@pytest.fixture
async def ada(shop: Shop, http: httpx2.AsyncClient, login: Callable[[str], Database]) -> Client:
    """A viewer of tenant A, whose shop is filled."""
    await fill(shop)
    return Client(http, await key_for(login, shop.tenant.context("operator"), shop.ctx))


@pytest.fixture
async def bob(other_shop: Shop, http: httpx2.AsyncClient, login: Callable[[str], Database]) -> Client:
    """A viewer of tenant B with the same ontology and nothing in it."""
    return Client(http, await key_for(login, other_shop.tenant.context("operator"), other_shop.ctx))


def paths(shop: Shop) -> list[str]:
    order, customer = shop.stored["purchase"][0]["id"], shop.stored["customer"][0]["id"]
    return [
        f"/v1/objects/purchase/{order}", "/v1/objects/purchase/by-key?customer_code=c1&number=1", f"/v1/objects/purchase/{order}/customer",
        f"/v1/objects/customer/{customer}/purchases",
    ]  # fmt: skip


async def test_anonymous_is_401_everywhere(shop: Shop, ada: Client) -> None:
    for path in (*paths(shop), "/v1/objects/purchase", "/v1/objects/purchase/aggregate", "/v1/ontology"):
        assert (await ada.http.get(path)).status_code == 401
    assert (await ada.http.post("/v1/graphql", json={"query": "{ __typename }"})).status_code == 401


async def test_another_tenant_is_404_with_our_ids(shop: Shop, ada: Client, bob: Client) -> None:
    for path in paths(shop):
        assert (await ada.get(path)).status_code == 200
        answer = await bob.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "object_not_found")
    assert (await bob.get("/v1/objects/purchase")).json() == {"items": [], "next": None}
    answer = await bob.query(
        {"query": "query ($id: UUID) { purchase(id: $id) { number } }", "variables": {"id": shop.stored["purchase"][0]["id"]}}
    )
    assert answer.json() == {"data": {"purchase": None}}


async def test_an_agents_base_key_is_403(shop: Shop, ada: Client, login: Callable[[str], Database]) -> None:
    agent = Client(ada.http, await key_for(login, shop.tenant.context("operator"), shop.tenant.context("agent"), KeyKind.AGENT))
    for path in (*paths(shop), "/v1/ontology"):
        assert (await agent.get(path)).status_code == 403
    answer = await agent.query({"query": "{ customers { next } }"})
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["extensions"]["code"] == "not_permitted"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/objects/nothing", 404, "object_type_not_found"),
        ("/v1/objects/purchase/x", 400, "invalid_value"),
        ("/v1/objects/purchase?nothing=1", 400, "unknown_property"),
        ("/v1/objects/purchase?number.like=1", 400, "unknown_operator"),
        ("/v1/objects/purchase?number=one", 400, "invalid_value"),
        ("/v1/objects/purchase?first=1&first=2", 400, "invalid_query"),
        ("/v1/objects/purchase?first=1001", 400, "page_too_large"),
        ("/v1/objects/purchase?filter={", 400, "invalid_query"),
        ("/v1/objects/purchase?filter=[]", 400, "invalid_query"),
        ("/v1/objects/purchase?filter=" + '{"not":' * 900 + "{}" + "}" * 900, 400, "filter_too_deep"),
        ("/v1/objects/purchase?sort=%ff", 400, "invalid_query"),
        ("/v1/objects/purchase?customer_code=" + "x" * 20_000, 400, "query_too_long"),
        ("/v1/objects/purchase/by-key?number=1", 400, "invalid_key"),
        ("/v1/objects/purchase/by-key?number=1&customer_code=c1&priority=1", 400, "invalid_key"),
        ("/v1/objects/purchase/aggregate?sum=placed", 400, "invalid_query"),
        ("/v1/objects/purchase/aggregate?after=x", 400, "unknown_property"),
        ("/v1/ontology?x=1", 400, "unknown_parameter"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_bad_rest_reads(ada: Client, path: str, status: int, code: str) -> None:
    answer = await ada.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_good_rest_reads(shop: Shop, ada: Client) -> None:
    listed = (await ada.get("/v1/objects/purchases?customer_code=c1&placed.gte=2024-01-02T00:00:00Z&fields=number,amount")).json()
    assert [set(item) for item in listed["items"]] == [{"id", "version", "number", "amount"}]
    assert listed["items"][0]["amount"] == "0.07"
    both = 'filter={"or":[{"number":{"eq":3}},{"amount":{"gt":"50"}}]}&sort=-number&priority.in=2&priority.in=3'
    assert [item["number"] for item in (await ada.get(f"/v1/objects/purchase?{both}")).json()["items"]] == [3, 1]
    assert (await ada.get("/v1/objects/customer?name.prefix=Zo%C3%AB")).json()["items"][0]["code"] == "c2"
    assert len((await ada.get("/v1/objects/purchase?amount.is_null=true")).json()["items"]) == 2
    assert len((await ada.get("/v1/objects/customer?active=true")).json()["items"]) == 1
    grouped = (await ada.get("/v1/objects/purchase/aggregate?group_by=customer_code&sum=amount&sort=-sum.amount&first=1")).json()
    assert grouped == {"groups": [{"key": {"customer_code": "c2"}, "count": 1, "sum": {"amount": "100.00"}}], "more": True}
    first = (await ada.get("/v1/objects/purchase?sort=-amount&first=2")).json()
    second = (await ada.get(f"/v1/objects/purchase?sort=-amount&first=2&after={first['next']}")).json()
    assert len({item["id"] for item in [*first["items"], *second["items"]]}) == 4
    catalogue = (await ada.get("/v1/ontology")).json()
    assert {item["name"] for item in catalogue["object_types"]} == {"customer", "region_info", "purchase"}


async def test_etags(shop: Shop, ada: Client) -> None:
    path = paths(shop)[0]
    answer = await ada.get(path)
    assert answer.json()["version"] == 1
    assert answer.headers["vary"] == "authorization"
    again = await ada.get(path, **{"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == answer.headers["etag"]
    object_type = shop.ontology.object_types["purchase"]
    async with shop.login("api").tenant(shop.ctx.identity) as session:
        await session.execute(
            f"update {shop.ontology.schema}.{object_type.table} set version = 2 where id = :id", {"id": shop.stored["purchase"][0]["id"]}
        )
    changed = await ada.get(path, **{"if-none-match": answer.headers["etag"]})
    assert changed.status_code == 200
    assert changed.headers["etag"] != answer.headers["etag"]


async def test_graphql_shapes(ada: Client) -> None:
    assert (await ada.query({"query": "{ customers(sort: [code_ASC]) { items { code } } }"})).json() == {
        "data": {"customers": {"items": [{"code": "c1"}, {"code": "c2"}]}}
    }
    assert (await ada.get("/v1/graphql?query={__typename}")).status_code == 405
    cases: list[tuple[Any, dict[str, str], int, str]] = [
        ([{"query": "{ __typename }"}], {}, 400, "batching_refused"),
        (b"{", {}, 400, "invalid_json"),
        (b'{"query": "{ __typename }", "variables": {"x": NaN}}', {}, 400, "invalid_json"),
        ({"query": 5}, {}, 400, "invalid_query"),
        ({"query": "{ __typename }", "variables": []}, {}, 200, ""),
        ({"query": "{ __typename }", "variables": [1]}, {}, 400, "invalid_query"),
        ({"query": "{ __typename }"}, {"content-type": "text/plain"}, 400, "unsupported_media_type"),
        ({"query": "# " + "x" * 300_000}, {}, 413, "body_too_large"),
        ({"query": "{ nothing }"}, {}, 400, "invalid_graphql"),
        ({"query": '{ a: customer(id: "x") { code } }'}, {}, 400, "invalid_value"),
    ]
    for body, headers, status, code in cases:
        answer = await ada.query(body, **headers)
        assert answer.status_code == status, (body, answer.text)
        if code:
            (error, *_) = answer.json()["errors"]
            assert error["extensions"]["code"] == code
            assert error["extensions"]["request_id"] == answer.headers["x-request-id"]
    error = (await ada.query({"query": "{ a: customers { items { b: purchases(first: 101) { next } } } }"})).json()["errors"][0]
    assert error["path"] == ["a", "items", "b"]
    assert error["extensions"]["argument"] == "first"


async def test_a_caller_that_goes_away_ends_its_query(app: FastAPI, shop: Shop, ada: Client) -> None:
    """The server's query is cancelled when the client disconnects, and nothing is answered."""
    await ada.get("/v1/ontology")
    lane = app.state.lane
    slow = asyncio.ensure_future(lane.fetch_json(shop.ctx.identity, "select 1::text"))
    await slow
    original, sent = lane.fetch_json, []
    lane.fetch_json = lambda identity, sql, params, timeout: original(identity, "select pg_sleep(20)::text", (), 30_000)
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": b""}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path = "/v1/objects/purchase"
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
             "headers": [(b"authorization", f"Bearer {ada.key}".encode())],
             "http_version": "1.1", "server": ("test", 80), "client": ("test", 1)}  # fmt: skip
    request = asyncio.ensure_future(app(scope, receive, send))
    await asyncio.sleep(0.4)
    gone.set()
    async with asyncio.timeout(3):
        await request
    lane.fetch_json = original
    assert sent == []
    assert lane.counts.cancelled == 1
