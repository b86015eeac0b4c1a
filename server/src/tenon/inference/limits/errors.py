"""What can go wrong with limits.

TenonError
├── Invalid   unknown_subject, invalid_limit, too_many_limits
├── NotFound  limit_not_found
└── Conflict  limit_exists
"""

from __future__ import annotations

from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound


def unknown_subject() -> Invalid:
    return Invalid(ErrorCode.UNKNOWN_SUBJECT, "There is no such project, key, principal or model name.", path="subject_id")


def invalid_limit(reason: str, path: str) -> Invalid:
    return Invalid(ErrorCode.INVALID_LIMIT, reason, path=path)


def limit_not_found() -> NotFound:
    return NotFound(ErrorCode.LIMIT_NOT_FOUND, "There is no such limit.")


def limit_exists() -> Conflict:
    return Conflict(ErrorCode.LIMIT_EXISTS, "This subject has a limit already.", path="subject_id", repair="Change that limit instead.")
