"""What can go wrong with sessions.

TenonError
├── Invalid    invalid_marking, invalid_purpose, invalid_ttl, not_an_agent
├── Forbidden  base_key_needed, ceiling_above_clearance, lower_ceiling
├── Conflict   lower_session_open
└── NotFound   agent_session_not_found
"""

from __future__ import annotations

from uuid import UUID

from tenon.kit.errors import Conflict, ErrorCode, Forbidden, NotFound


def base_key_needed() -> Forbidden:
    """A session that opened sessions could raise its own ceiling."""
    return Forbidden(
        ErrorCode.BASE_KEY_NEEDED,
        "Sessions are opened with an agent's base key, not from inside a session.",
        repair="Use the agent's own key.",
    )


def ceiling_above_clearance(markings: frozenset[str]) -> Forbidden:
    return Forbidden(
        ErrorCode.CEILING_ABOVE_CLEARANCE,
        f"This agent may not see: {', '.join(sorted(markings))}.",
        path="ceiling",
        repair="Ask for a ceiling without them.",
    )


def lower_ceiling(missing: frozenset[str], window_hours: int) -> Forbidden:
    """What was read above could be pasted into a session below."""
    return Forbidden(
        ErrorCode.LOWER_CEILING,
        f"Within the last {window_hours} hours this agent had a session that could see: {', '.join(sorted(missing))}.",
        path="ceiling",
        repair="Add these markings to the ceiling, or ask an operator to permit it: POST /v1/agent-sessions/lower-permits.",
        details={"missing": sorted(missing)},
    )


def lower_session_open(open_sessions: list[UUID]) -> Conflict:
    """What a new session reads could be pasted into an open one below."""
    return Conflict(
        ErrorCode.LOWER_SESSION_OPEN,
        "This agent has an open session with a lower ceiling.",
        repair="Close it first: POST /v1/agent-sessions/{id}/close.",
        details={"sessions": [str(id) for id in open_sessions]},
    )


def agent_session_not_found() -> NotFound:
    return NotFound(ErrorCode.AGENT_SESSION_NOT_FOUND, "There is no such session.")
