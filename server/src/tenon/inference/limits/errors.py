"""What can go wrong with limits.

TenonError
├── Invalid   unknown_subject, invalid_limit, too_many_limits
├── NotFound  limit_not_found
└── Conflict  limit_exists
"""

from __future__ import annotations

from tenon.kit.errors import Conflict, Invalid, NotFound


def unknown_subject() -> Invalid:
    return Invalid("unknown_subject", "There is no such project, key, principal or model name.", path="subject_id")


def invalid_limit(reason: str, path: str) -> Invalid:
    return Invalid("invalid_limit", reason, path=path)


def limit_not_found() -> NotFound:
    return NotFound("limit_not_found", "There is no such limit.")


def limit_exists() -> Conflict:
    return Conflict("limit_exists", "This subject has a limit already.", path="subject_id", repair="Change that limit instead.")
