"""What can go wrong with a tool call besides what the services refuse.

TenonError
├── Forbidden  session_needed
├── NotFound   unknown_tool
├── Invalid    invalid_arguments
└── Invalid    result_too_large
"""

from __future__ import annotations

from tenon.kit.errors import ErrorCode, Forbidden, Invalid, NotFound


def session_needed() -> Forbidden:
    return Forbidden(
        ErrorCode.SESSION_NEEDED,
        "This is an agent's base key; it opens sessions and does nothing else.",
        repair="POST /v1/agent-sessions with the markings you need, then use the session's key here.",
    )


def unknown_tool(name: str) -> NotFound:
    return NotFound(ErrorCode.UNKNOWN_TOOL, f"There is no tool {name[:64]}.", repair="List the tools again.")


def invalid_arguments(message: str, path: str) -> Invalid:
    return Invalid(
        ErrorCode.INVALID_ARGUMENTS,
        message,
        path=path or "arguments",
        repair="Correct this argument; the tool's input schema has the rules.",
    )


def result_too_large(bytes_max: int) -> Invalid:
    return Invalid(
        ErrorCode.RESULT_TOO_LARGE, f"The result is larger than {bytes_max} bytes.", repair="Ask for fewer fields or a narrower filter."
    )
