"""Rules for how endpoints are filled and watched, and how a model's routes are picked."""

from __future__ import annotations

import re
from dataclasses import replace

from tenon.inference.models.base_urls import safe_base_url
from tenon.inference.models.contracts import Model, Serving
from tenon.kit.errors import ErrorCode, Invalid

CONCURRENCY_MAX = 100_000
QUEUE_TIMEOUT_MS_MAX = 600_000
TOKENS_MAX = 100_000_000
RETRIES_MAX = 5
TIER_MAX = 100
COST_MAX = 10**15
OPERATIONS = frozenset(
    (
        "chat", "completion", "embedding", "response", "message", "count_tokens", "rerank", "speech", "transcription", "image", "realtime", "infer",
    )
)  # fmt: skip
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+/?|/")
_HEADER = re.compile(r"[a-z][a-z0-9-]{0,63}")


def checked_serving(serving: Serving, *, loopback_allowed: bool) -> Serving:
    """The same with addresses in their normal form. Raises Invalid with the field's path."""
    _within(serving.concurrency_max, CONCURRENCY_MAX, "serving.concurrency_max")
    if serving.health_path and not _PATH.fullmatch(serving.health_path):
        raise Invalid(
            ErrorCode.INVALID_PATH, "A health path begins with / and is made of plain names, such as /health.", path="serving.health_path"
        )
    for position, operation in enumerate(serving.operations):
        if operation not in OPERATIONS:
            rule = f"An operation is one of: {', '.join(sorted(OPERATIONS))}."
            raise Invalid(ErrorCode.UNKNOWN_OPERATION, rule, path=f"serving.operations.{position}")
    if not serving.metrics_url:
        return serving
    if not serving.engine:
        raise Invalid(ErrorCode.ENGINE_MISSING, "Metrics can be read only if the engine is named.", path="serving.engine")
    try:
        url = safe_base_url(serving.metrics_url, loopback_allowed=loopback_allowed)
    except Invalid as refused:
        raise Invalid(refused.code, str(refused), path="serving.metrics_url") from None
    return replace(serving, metrics_url=url)


def check_balancing(model: Model) -> None:
    """Raises Invalid with the field's path."""
    balancing = model.balancing
    _within(balancing.queue_timeout_ms, QUEUE_TIMEOUT_MS_MAX, "balancing.queue_timeout_ms")
    _within(balancing.context_tokens, TOKENS_MAX, "balancing.context_tokens")
    _within(balancing.output_tokens_max, TOKENS_MAX, "balancing.output_tokens_max")
    _within(balancing.retries_max, RETRIES_MAX, "balancing.retries_max")
    if balancing.affinity_header and not _HEADER.fullmatch(balancing.affinity_header):
        raise Invalid(
            ErrorCode.INVALID_HEADER, "A header's name is lower-case letters, digits and dashes.", path="balancing.affinity_header"
        )
    for position, route in enumerate(model.routes):
        _within(route.tier, TIER_MAX, f"routes.{position}.tier")
        _within(route.input_cost_nano_per_million, COST_MAX, f"routes.{position}.input_cost_nano_per_million")
        _within(route.output_cost_nano_per_million, COST_MAX, f"routes.{position}.output_cost_nano_per_million")


def _within(value: int, most: int, path: str) -> None:
    if not 0 <= value <= most:
        raise Invalid(ErrorCode.OUT_OF_RANGE, f"This is a whole number from 0 to {most}.", path=path)
