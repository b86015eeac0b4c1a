"""The worker's own reading of the outbox: how late events are, and the worker's part of each sampled trace."""

from __future__ import annotations

from opentelemetry.trace import SpanKind
from prometheus_client import Histogram

from tenon.core.events import Delivered
from tenon.kit import clock, telemetry

CONSUMER = "telemetry"
LAG = Histogram(
    "tenon_event_lag_seconds", "From an event's making to its being readable.", buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 30, 300)
)


async def observe(event: Delivered) -> None:
    """Measure one event and go on with its trace; ids and names only, as events have them."""
    LAG.observe(max(0.0, (clock.now() - event.occurred_at).total_seconds()))
    within = telemetry.trace_from(event.traceparent, 0.0)
    attributes: dict[str, str | int] = {"tenon.request_id": event.request_id, "tenon.event_type": event.type}
    with telemetry.span("tenon.event", within, attributes, kind=SpanKind.CONSUMER):
        telemetry.logger().info(
            "event.relayed", event_id=str(event.id), type=event.type, request_id=event.request_id, trace_id=within.trace_id
        )
