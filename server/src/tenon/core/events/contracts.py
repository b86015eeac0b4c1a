"""What consumers receive: CloudEvents 1.0 attributes; ids and names only, never property values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from tenon.kit import pagination

_ZERO = UUID(int=0)
_SHAPE = "events"


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `type` is `tenon.<noun>.<past participle>.v1`, `subject` names the thing, `data` carries ids, names and counts.

    `markings`: a reader whose clearance lacks one of these never sees the event.
    """

    type: str
    subject: str
    data: dict[str, Any] = field(default_factory=dict)
    markings: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the outbox's order. Ids are not commit order; (epoch, xid, id) below the watermark is."""

    epoch: int = 0
    xid: int = 0
    id: UUID = _ZERO


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position, and the epoch in which it was issued: an older one is taken back once by what a restore may have hidden."""

    position: Position = Position()
    as_of: int = 0

    def __str__(self) -> str:
        """Opaque to clients."""
        where = self.position
        return pagination.encode_cursor(_SHAPE, [self.as_of, where.epoch, where.xid, where.id])

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Raises Invalid `invalid_cursor`."""
        values = pagination.decode_cursor(_SHAPE, text)
        try:
            as_of, epoch, xid, event_id = values
            cursor = cls(Position(int(epoch), int(xid), UUID(event_id)), int(as_of))
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise pagination.invalid_cursor() from None
        if not (0 <= cursor.as_of < 2**31 and 0 <= cursor.position.epoch < 2**31 and 0 <= cursor.position.xid < 2**63):
            raise pagination.invalid_cursor()
        return cursor


BEGINNING = Cursor()


@dataclass(frozen=True, slots=True)
class Delivered:
    """An event as consumers get it, at least once; `id` identifies repeats."""

    id: UUID
    tenant: UUID
    position: Position
    occurred_at: datetime
    type: str
    subject: str
    data: dict[str, Any]
    markings: frozenset[str]
    request_id: str
    traceparent: str | None

    def as_cloud_event(self) -> dict[str, Any]:
        """CloudEvents 1.0 in JSON; `requestid` and `traceparent` are extension attributes."""
        attributes = {
            "specversion": "1.0",
            "id": self.id,
            "source": f"/tenants/{self.tenant}",
            "type": self.type,
            "subject": self.subject,
            "time": self.occurred_at,
            "datacontenttype": "application/json",
            "requestid": self.request_id,
            "data": self.data,
        }
        return attributes if self.traceparent is None else attributes | {"traceparent": self.traceparent}


@dataclass(frozen=True, slots=True)
class Page:
    """Events after `start`; `cursor` stands behind all that was looked at, also what the reader may not see."""

    events: tuple[Delivered, ...]
    start: Cursor
    cursor: Cursor
    is_last: bool  # nothing more was committed below the watermark
