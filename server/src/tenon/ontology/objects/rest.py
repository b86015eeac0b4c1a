"""REST for objects: plain ASGI endpoints, because they are hot. Answers go out as the database made them.

Needs `app.state.lane`, `app.state.ontologies`, and authentication in front.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tenon.core.context import Context, context_of
from tenon.kit.errors import ErrorCode
from tenon.ontology.objects.errors import bad_request, limit_exceeded
from tenon.ontology.objects.limits import URL_QUERY_BYTES_MAX
from tenon.ontology.objects.responses import CancelledOnDisconnect, objects_of, send_json, send_not_modified
from tenon.ontology.objects.service import Objects
from tenon.ontology.objects.sql import values
from tenon.ontology.objects.visibility import VisibleType

_VERSION = re.compile(rb'\{"id":"[0-9a-f-]{36}","version":(\d+)')
_MEASURES = ("sum", "avg", "min", "max")
_PAGING = frozenset({"filter", "sort", "first", "after", "fields"})
_GROUPING = frozenset({"filter", "group_by", "sort", "first", *_MEASURES})

Query = dict[str, list[str]]
Handler = Callable[[Objects, Context, Mapping[str, str], Query], Awaitable[bytes]]


def routes() -> list[Route]:
    """Every read route, fixed words before placeholders. The parameters are described in docs/reference/reads.md."""
    return [
        Route("/v1/objects/{type}/by-key", _Endpoint(_by_key, one_object=True), methods=["GET"]),
        Route("/v1/objects/{type}/aggregate", _Endpoint(_aggregate), methods=["GET"]),
        Route("/v1/objects/{type}/{id}", _Endpoint(_get, one_object=True), methods=["GET"]),
        Route("/v1/objects/{type}/{id}/{link}", _Endpoint(_follow), methods=["GET"]),
        Route("/v1/objects/{type}", _Endpoint(_list), methods=["GET"]),
        Route("/v1/ontology", _Endpoint(_catalogue), methods=["GET"]),
    ]


class _Endpoint:
    """A handler as an ASGI endpoint."""

    def __init__(self, handler: Handler, *, one_object: bool = False) -> None:
        self._handler = handler
        self._one_object = one_object

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ctx, objects, query = context_of(scope), objects_of(scope), _query(scope["query_string"])
        body = b""
        with CancelledOnDisconnect(receive) as caller:
            body = await self._handler(objects, ctx, scope["path_params"], query)
        if caller.gone:
            return
        if not self._one_object:
            await send_json(send, body)
            return
        etag = _etag((await objects.view(ctx)).key, body)
        if etag in _if_none_match(scope):
            await send_not_modified(send, etag)
        else:
            await send_json(send, body, etag=etag)


def _etag(view_key: str, body: bytes) -> bytes:
    """Names what is visible and the object's version: the answer to one URL changes with both."""
    version = _VERSION.match(body)
    return b'"%s-%s"' % (view_key[:16].encode(), version[1] if version else b"0")


def _if_none_match(scope: Scope) -> list[bytes]:
    sent = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
    return [tag.strip().removeprefix(b"W/") for tag in sent.split(b",")]


# -- handlers -----------------------------------------------------------------------------------------------------------------------------


async def _catalogue(objects: Objects, ctx: Context, path: Mapping[str, str], query: Query) -> bytes:
    _only(query, frozenset())
    return await objects.catalogue(ctx)


async def _get(objects: Objects, ctx: Context, path: Mapping[str, str], query: Query) -> bytes:
    _only(query, frozenset({"fields"}))
    return await objects.get(ctx, path["type"], path["id"], fields=_list_of(query, "fields"))


async def _by_key(objects: Objects, ctx: Context, path: Mapping[str, str], query: Query) -> bytes:
    fields = _list_of(query, "fields")
    object_type = await objects.type(ctx, path["type"])
    key = {}
    for name in query:
        if name != "fields":
            item = object_type.property(name, name)
            key[name] = values.from_text(item, _single(query, name) or "")
    return await objects.get_by_key(ctx, object_type.name, key, fields=fields)


async def _list(objects: Objects, ctx: Context, path: Mapping[str, str], query: Query) -> bytes:
    object_type = await objects.type(ctx, path["type"])
    return await objects.list(
        ctx, object_type.name, filter=_filter(object_type, query, _PAGING), sort=_list_of(query, "sort") or (), first=_single(query, "first"),
        after=_single(query, "after"), fields=_list_of(query, "fields"),
    )  # fmt: skip


async def _follow(objects: Objects, ctx: Context, path: Mapping[str, str], query: Query) -> bytes:
    view = await objects.view(ctx)
    object_type = view.type(path["type"])
    link = object_type.link(path["link"])
    end = view.types[link.target if path["link"] in object_type.ones else link.source]
    return await objects.follow(
        ctx, object_type.name, path["id"], path["link"], filter=_filter(end, query, _PAGING), sort=_list_of(query, "sort") or (),
        first=_single(query, "first"), after=_single(query, "after"), fields=_list_of(query, "fields"),
    )  # fmt: skip


async def _aggregate(objects: Objects, ctx: Context, path: Mapping[str, str], query: Query) -> bytes:
    object_type = await objects.type(ctx, path["type"])
    measures = {name: _list_of(query, name) or [] for name in _MEASURES if name in query}
    return await objects.aggregate(
        ctx, object_type.name, filter=_filter(object_type, query, _GROUPING), group_by=_list_of(query, "group_by") or (), measures=measures,
        sort=_list_of(query, "sort") or (), first=_single(query, "first"),
    )  # fmt: skip


# -- query strings ------------------------------------------------------------------------------------------------------------------------


def _query(raw: bytes) -> Query:
    """Parameters in order, each with all its values."""
    if not raw:
        return {}
    if len(raw) > URL_QUERY_BYTES_MAX:
        raise limit_exceeded(ErrorCode.QUERY_TOO_LONG, f"A query string has at most {URL_QUERY_BYTES_MAX} bytes.", "query")
    query: Query = {}
    try:
        for name, value in parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=500):
            query.setdefault(name, []).append(value)
    except ValueError:
        raise bad_request("query", "The query string is not URL-encoded UTF-8.") from None
    return query


def _only(query: Query, known: frozenset[str]) -> None:
    for name in query:
        if name not in known:
            raise bad_request(name[:64], "This route has no such parameter.", code=ErrorCode.UNKNOWN_PARAMETER)


def _single(query: Query, name: str) -> str | None:
    values = query.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise bad_request(name[:64], "This parameter is given more than once.")
    return values[0]


def _list_of(query: Query, name: str) -> list[str] | None:
    """`a,b` as its parts."""
    text = _single(query, name)
    return None if text is None else [part for part in text.split(",") if part]


def _filter(object_type: VisibleType, query: Query, known: frozenset[str]) -> dict[str, Any] | None:
    """`filter=<json>` and `property.operator=value` parameters (no operator is `eq`, `in` is repeated) as one filter document."""
    parts: dict[str, Any] = {}
    for name in query:
        if name in known:
            continue
        bare, _, operator = name.partition(".")
        item = object_type.property(bare, name)
        if operator == "in":
            operand: Any = [values.from_text(item, each) for each in query[name]]
        elif operator == "is_null":
            operand = {"true": True, "false": False}.get(_single(query, name) or "", "")
        else:
            operand = values.from_text(item, _single(query, name) or "")
        parts.setdefault(bare, {})[operator or "eq"] = operand
    document = _filter_document(_single(query, "filter"))
    if document is None:
        return parts or None
    return {"and": [document, parts]} if parts else document


def _filter_document(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise bad_request("filter", "`filter` is not JSON.") from None
    if not isinstance(document, dict):
        raise bad_request("filter", "A filter is an object of properties, `and`, `or`, `not`.")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
