"""Telemetry from the ground up: JSON logs (structlog), spans (OpenTelemetry), metrics (Prometheus), one request id and trace through all.

None of them holds a secret or a personal value. A processor blanks what looks like a key or a password by name or by shape; a canary test
greps every output. Spans are made only when sampled; an unsampled one costs seven microseconds for nothing.
"""

from __future__ import annotations

import logging
import random
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from tenon.kit.settings import Settings

_SECRET_NAME = re.compile(r"password|secret|token|authorization|api_key_text|credential|cookie", re.IGNORECASE)
_SECRET_SHAPE = re.compile(r"tnn_[a-z]+_[a-z]+_[0-9A-Za-z]{10}_[0-9A-Za-z]{20,}|://[^/\s:@]+:[^/\s@]+@|Bearer\s+\S+")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
REDACTED = "[redacted]"


def redact(value: Any) -> Any:
    """`value` with every key, password and connection string blanked."""
    match value:
        case str():
            return _SECRET_SHAPE.sub(REDACTED, value)
        case dict():
            return {name: REDACTED if _SECRET_NAME.search(str(name)) else redact(item) for name, item in value.items()}
        case list() | tuple():
            return [redact(item) for item in value]
        case _:
            return value


def _redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = REDACTED if _SECRET_NAME.search(name) else redact(value)
    return event


def configure(process: str, settings: Settings) -> None:
    """Set up logs and, when an OTLP endpoint is configured, spans for this process. Call once, first."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _redact_event,  # after the traceback became text, so that it is looked at too
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    _adopt_other_loggers()
    if settings.otlp_endpoint:
        provider = TracerProvider(resource=Resource.create({"service.name": f"tenon-{process}"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint}/v1/traces")))
        trace.set_tracer_provider(provider)


def _adopt_other_loggers() -> None:
    """Libraries log through `logging`: their warnings become the same redacted JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    finish: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redact_event,
        structlog.processors.JSONRenderer(),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=finish))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)


def logger() -> Any:
    """This process's logger: `log.info("proposal.executed", proposal_id=…)`; nouns and past participles, never values of properties."""
    return structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trace:
    """W3C trace context of one request: 32 and 16 hex characters."""

    trace_id: str
    parent_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.parent_id}-{'01' if self.sampled else '00'}"


def trace_from(header: str | None, sample_ratio: float) -> Trace:
    """Continue the caller's trace when its header is well-formed, else begin one; a caller's sampled flag is honoured."""
    match = _TRACEPARENT.fullmatch(header or "")
    if match and int(match[1], 16) and int(match[2], 16):
        return Trace(match[1], match[2], bool(int(match[3], 16) & 1))
    sampled = random.random() < sample_ratio  # noqa: S311  (sampling is no secret)
    return Trace(f"{random.getrandbits(128) or 1:032x}", f"{random.getrandbits(64) or 1:016x}", sampled)


@contextmanager
def span(name: str, within: Trace, attributes: dict[str, str | int] | None = None, kind: SpanKind = SpanKind.SERVER) -> Iterator[None]:
    """A span of this trace, made only when the trace is sampled."""
    if not within.sampled:
        yield
        return
    parent = SpanContext(int(within.trace_id, 16), int(within.parent_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    context = trace.set_span_in_context(NonRecordingSpan(parent))
    # Exceptions stay out of spans: their text may hold what a caller sent.
    with trace.get_tracer("tenon").start_as_current_span(
        name, context=context, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ):
        yield
