"""Every gRPC call passes here: the gateway is authenticated, and no exception's text gets out (grpc.aio would send it to the caller)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from tenon.inference.gateway_sync.enrolment import Enrolment

ServicerContext = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, ServicerContext], Awaitable[Any]]
log = structlog.get_logger(__name__)


class AuthenticationInterceptor(grpc.aio.ServerInterceptor):
    """Lets enrolled gateways in, and maps every failure inside to a status without details."""

    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment = enrolment

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler, or a refusal for who is not enrolled."""
        metadata = handler_call_details.invocation_metadata or ()
        if self._enrolment.gateway(metadata) is None:
            return grpc.stream_stream_rpc_method_handler(_refuse)  # of this shape it answers before any message came
        handler = await continuation(handler_call_details)
        # None = no such method: grpc answers UNIMPLEMENTED by itself.
        return _guarded(handler) if handler else handler


async def _refuse(_request: Any, context: ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "This gateway is not enrolled, or its token is wrong.")


def _guarded(handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
    makers: dict[tuple[bool, bool], Any] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    make = makers[handler.request_streaming, handler.response_streaming]
    guarded: grpc.RpcMethodHandler[Any, Any] = make(
        _catching(behaviour), request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )
    return guarded


def _catching(behaviour: Behaviour) -> Behaviour:
    async def call(request: Any, context: ServicerContext) -> Any:
        try:
            return await behaviour(request, context)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            await _abort(error, context)

    return call


async def _abort(error: Exception, context: ServicerContext) -> None:
    causes = _leaves(error)
    for cause in causes:
        if isinstance(cause, grpc.aio.AbortError):
            raise cause
    log.error("gateway_call.failed", exc_info=error)
    if all(_is_outage(cause) for cause in causes):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The control plane's database does not answer. Try again.")
    await context.abort(grpc.StatusCode.INTERNAL, "The call failed on our side. Its cause is in the log.")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, OperationalError | InterfaceError | OSError | TimeoutError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )
