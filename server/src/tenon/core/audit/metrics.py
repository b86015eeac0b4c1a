"""What an operator watches: entries sequenced, how old they were, how long an open transaction holds the watermark back."""

from __future__ import annotations

import time
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

SEQUENCED = Counter("tenon_audit_sequenced_entries_total", "Audit entries that got their place in a tree.")
CHECKPOINTS = Counter("tenon_audit_checkpoints_total", "Checkpoints signed, the root log's included.")
GENERATIONS = Counter("tenon_audit_log_restarts_total", "New log generations: the database did not continue what was signed.")
ENTRY_AGE = Histogram(
    "tenon_audit_sequence_delay_seconds",
    "From an entry's writing to its place in the tree.",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 600),
)
CHECKPOINT_LAG = Gauge("tenon_audit_checkpoint_lag_seconds", "Since the last signing round that left nothing unsigned.")
WATERMARK_AGE = Gauge("tenon_audit_watermark_age_seconds", "How long the oldest open transaction has held the watermark still.")

_watermark = (0, 0.0)


def observe_sequenced(written: list[datetime], now: datetime) -> None:
    """Count a batch."""
    SEQUENCED.inc(len(written))
    for instant in written[:: max(1, len(written) // 50)]:  # a sample is enough for a histogram
        ENTRY_AGE.observe(max(0.0, (now - instant).total_seconds()))


def observe_watermark(watermark: int, next_xid: int) -> None:
    """The watermark stands still for as long as one transaction is open, anywhere in the cluster."""
    global _watermark
    if watermark >= next_xid or watermark != _watermark[0]:
        _watermark = (watermark, time.monotonic())
    WATERMARK_AGE.set(time.monotonic() - _watermark[1])
