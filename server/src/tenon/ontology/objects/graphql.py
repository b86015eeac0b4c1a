"""The GraphQL endpoint: POST /v1/graphql, one operation a request, read only. Needs `app.state.lane`,
`app.state.ontologies`, and authentication in front."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from graphql import GraphQLError
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tenon.core.context import context_of
from tenon.kit.errors import ErrorCode, Invalid, TenonError, http_status, retry_after_seconds
from tenon.ontology.objects.errors import bad_request, limit_exceeded
from tenon.ontology.objects.graphql_language.documents import InvalidDocument
from tenon.ontology.objects.graphql_language.operations import FieldRefused
from tenon.ontology.objects.graphql_language.service import GraphQL, GraphQLRequest
from tenon.ontology.objects.limits import GRAPHQL_BYTES_MAX
from tenon.ontology.objects.responses import CancelledOnDisconnect, objects_of, send_json


def routes() -> list[Route]:
    """The endpoint, where GET is 405."""
    return [Route("/v1/graphql", _Endpoint(), methods=["POST"])]


def _service(scope: Scope) -> GraphQL:
    state = scope["app"].state
    try:
        service: GraphQL = state.graphql
    except AttributeError:
        service = state.graphql = GraphQL(objects_of(scope))
    return service


class _Endpoint:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ctx = context_of(scope)
        service = _service(scope)
        body: bytes = b""
        refusal: TenonError | None = None
        path: tuple[str, ...] = ()
        status = 200
        with CancelledOnDisconnect(receive) as caller:
            try:
                body = await service.execute(ctx, _request_of(scope, await _body(receive)))
            except InvalidDocument as error:
                status, body = http_status(ErrorCode.INVALID_GRAPHQL), _errors(_of_document(error.errors), ctx.request_id)
            except FieldRefused as error:
                refusal, path = error.error, error.path
            except TenonError as error:
                refusal = error
        if caller.gone:
            return
        if refusal is None:
            await send_json(send, body, status=status)
        else:
            body = _errors([_of_tenon(refusal, path)], ctx.request_id)
            await send_json(send, body, status=http_status(refusal.code), retry_after=retry_after_seconds(refusal.code))


async def _body(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Invalid(ErrorCode.INCOMPLETE_BODY, "The request ended before its body did.")
        part = message.get("body", b"")
        size += len(part)
        if size > GRAPHQL_BYTES_MAX:
            raise limit_exceeded(ErrorCode.BODY_TOO_LARGE, f"A GraphQL request has at most {GRAPHQL_BYTES_MAX} bytes.", "body")
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _request_of(scope: Scope, body: bytes) -> GraphQLRequest:
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if content_type != b"application/json" and content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise bad_request("content-type", "Send `Content-Type: application/json`.", code=ErrorCode.UNSUPPORTED_MEDIA_TYPE)
    try:
        document = _DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        raise bad_request("body", "The body is not JSON.", code=ErrorCode.INVALID_JSON) from None
    if isinstance(document, list):
        raise bad_request(
            "body",
            "One operation a request. Several root fields of one operation are still one statement.",
            code=ErrorCode.BATCHING_REFUSED,
        )
    if not isinstance(document, dict) or not isinstance(document.get("query"), str):
        raise bad_request("query", "`query` is the GraphQL text.")
    variables, operation = document.get("variables") or {}, document.get("operationName")
    if not isinstance(variables, dict):
        raise bad_request("variables", "`variables` is an object.")
    if operation is not None and not isinstance(operation, str):
        raise bad_request("operationName", "`operationName` is a string.")
    return GraphQLRequest(document["query"], variables, operation or None)


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)  # NaN and Infinity are not JSON


def _of_tenon(error: TenonError, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """The same code, sentence and repair as in every protocol; `argument` is the path inside the request."""
    parts = error.as_dict()
    entry: dict[str, Any] = {"message": parts.pop("message")}
    if path:
        entry["path"] = list(path)
    argument = parts.pop("path", None)
    entry["extensions"] = {**parts, **({"argument": argument} if argument else {})}
    return entry


def _of_document(errors: Iterable[GraphQLError]) -> list[dict[str, Any]]:
    return [{**error.formatted, "extensions": {"code": ErrorCode.INVALID_GRAPHQL.value}} for error in errors]


def _errors(errors: list[dict[str, Any]], request_id: str) -> bytes:
    for error in errors:
        error["extensions"]["request_id"] = request_id
    return json.dumps({"errors": errors}).encode()
