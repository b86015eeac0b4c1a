"""Reads of objects: every handler and every other package comes through here. Each read is one SQL statement in the fast lane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from tenon.core.context import Context
from tenon.kit.database.lane import Lane, QueryFailed
from tenon.kit.errors import ErrorCode, Invalid
from tenon.kit.lru import LruCache
from tenon.ontology.objects.contracts import Aggregation, One, Page
from tenon.ontology.objects.errors import object_not_found
from tenon.ontology.objects.limits import ANSWER_BYTES_MAX, TIMEOUT_MS
from tenon.ontology.objects.requests import catalogue, queries
from tenon.ontology.objects.requests.signatures import cursor_signature, signature
from tenon.ontology.objects.sql.compiler import compile_query
from tenon.ontology.objects.sql.plans import TOO_LARGE, Plan
from tenon.ontology.objects.visibility import View, VisibleType, view_for
from tenon.ontology.schema import Ontologies
from tenon.ontology.schema.current_ontologies import CHECK_SECONDS

PLANS_MAX = 4_000
_ABSENT = b"null"
# A table or column that is gone: the ontology was changed after it was read.
_CHANGED = frozenset({"42P01", "42703", "3F000"})
_NUMBER_TOO_LARGE = "22003"


class Objects:
    """Reads for one process: the lane, the tenants' ontologies and a bounded memory of plans."""

    def __init__(self, lane: Lane, ontologies: Ontologies) -> None:
        self._lane = lane
        self._ontologies = ontologies
        self._plans: LruCache[Hashable, Plan] = LruCache(PLANS_MAX)

    async def view(self, ctx: Context) -> View:
        """What exists for `ctx`. Raises NotFound `no_ontology`, Forbidden."""
        known = self._ontologies.known(ctx.tenant)
        return view_for(ctx, known or await self._ontologies.current(ctx.tenant))

    async def catalogue(self, ctx: Context) -> bytes:
        """The types, properties and links that exist for `ctx`, as JSON."""
        return catalogue.document(await self.view(ctx))

    async def get(self, ctx: Context, type_name: str, object_id: str, *, fields: Sequence[str] | None = None) -> bytes:
        """One object by its id. Raises NotFound `object_not_found`."""
        arguments = {"id": object_id}
        key = ("get", type_name, _names(fields))

        def build(view: View) -> One:
            return queries.one(view.type(type_name), fields)

        return _present(await self._read(ctx, key, arguments, build))

    async def get_by_key(self, ctx: Context, type_name: str, key: Mapping[str, Any], *, fields: Sequence[str] | None = None) -> bytes:
        """One object by its whole primary key. Raises NotFound `object_not_found`, Invalid `invalid_key`."""
        arguments = {"key": dict(key)}
        shape = ("key", type_name, signature(arguments), _names(fields))

        def build(view: View) -> One:
            return queries.one_by_key(view.type(type_name), key, fields)

        return _present(await self._read(ctx, shape, arguments, build))

    async def list(
        self,
        ctx: Context,
        type_name: str,
        *,
        filter: Mapping[str, Any] | None = None,
        sort: Sequence[str] = (),
        first: Any = None,
        after: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> bytes:
        """A page of objects: `{"items": [{"id", "version", …}], "next": cursor or null}`."""
        arguments = {"filter": filter, "after": after}
        shape = ("list", type_name, signature(filter), tuple(sort), first, cursor_signature(after), _names(fields))

        def build(view: View) -> Page:
            return queries.page(view.type(type_name), arguments, sort=sort, first=first, fields=fields)

        return await self._read(ctx, shape, arguments, build)

    async def follow(
        self,
        ctx: Context,
        type_name: str,
        object_id: str,
        link: str,
        *,
        filter: Mapping[str, Any] | None = None,
        sort: Sequence[str] = (),
        first: Any = None,
        after: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> bytes:
        """The object a link names, or a page of the objects that name this one. Raises NotFound: no such object, or nothing at the end."""
        arguments = {"id": object_id, "filter": filter, "after": after}
        shape = ("follow", type_name, link, signature(filter), tuple(sort), first, cursor_signature(after), _names(fields))

        def build(view: View) -> One:
            return queries.follow(view, view.type(type_name), link, arguments, sort=sort, first=first, fields=fields)

        return _present(await self._read(ctx, shape, arguments, build))

    async def aggregate(
        self,
        ctx: Context,
        type_name: str,
        *,
        filter: Mapping[str, Any] | None = None,
        group_by: Sequence[str] = (),
        measures: Mapping[str, Sequence[str]] | None = None,
        sort: Sequence[str] = (),
        first: Any = None,
    ) -> bytes:
        """Groups with their count and figures: `{"groups": [{"key": {…}, "count": n, "avg": {…}}], "more": bool}`."""
        arguments, requested = {"filter": filter}, measures or {}
        figures = tuple((name, tuple(properties)) for name, properties in requested.items())
        shape = ("aggregate", type_name, signature(filter), tuple(group_by), figures, tuple(sort), first)

        def build(view: View) -> Aggregation:
            object_type = view.type(type_name)
            return queries.aggregation(object_type, arguments, group_by=group_by, measures=requested, sort=sort, first=first)

        return await self._read(ctx, shape, arguments, build)

    async def type(self, ctx: Context, name: str) -> VisibleType:
        """A visible type. Raises NotFound `object_type_not_found`."""
        return (await self.view(ctx)).type(name)

    # -- running ----------------------------------------------------------------------------------------------------------------------

    async def _read(
        self, ctx: Context, shape: Hashable, arguments: Mapping[str, Any], build: Callable[[View], One | Page | Aggregation]
    ) -> bytes:
        def plan(view: View) -> Plan:
            return compile_query(view.ontology.schema, build(view))

        return await self.run(ctx, await self.view(ctx), shape, arguments, plan)

    async def run(self, ctx: Context, view: View, shape: Hashable, arguments: Mapping[str, Any], make: Callable[[View], Plan]) -> bytes:
        """Run the plan of this shape, made by `make` when it is not known, once more after the ontology changed under it."""
        try:
            return await self._run_plan(ctx, view, shape, arguments, make)
        except QueryFailed as error:
            if error.sqlstate not in _CHANGED:
                raise
            await asyncio.sleep(CHECK_SECONDS)  # by then `ontologies` has asked again
            fresh = await self.view(ctx)
            if fresh.key == view.key:
                raise
            return await self._run_plan(ctx, fresh, shape, arguments, make)

    async def _run_plan(
        self, ctx: Context, view: View, shape: Hashable, arguments: Mapping[str, Any], make: Callable[[View], Plan]
    ) -> bytes:
        key = (view.key, shape)
        plan = self._plans.get(key) or self._plans.put(key, make(view))
        try:
            body = await self._lane.fetch_json(ctx.identity, plan.sql, plan.bind(arguments), TIMEOUT_MS)
        except QueryFailed as error:
            if error.sqlstate == _NUMBER_TOO_LARGE:
                raise Invalid(ErrorCode.NUMBER_OUT_OF_RANGE, "A figure of this aggregation is too large to be represented.") from error
            raise
        if body == TOO_LARGE:
            raise Invalid(
                ErrorCode.RESULT_TOO_LARGE,
                f"The answer is larger than {ANSWER_BYTES_MAX} bytes.",
                repair="Ask for fewer fields or a smaller page.",
            )
        return body


def _present(body: bytes) -> bytes:
    if body == _ABSENT:
        raise object_not_found()
    return body


def _names(fields: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if fields is None else tuple(fields)
