"""What can go wrong with a tool call besides what the services refuse.

TenonError
├── Forbidden  session_needed
├── NotFound   unknown_tool
├── Invalid    invalid_arguments
└── TooMuch    result_too_large
"""

from __future__ import annotations

from tenon.kit.errors import Forbidden, Invalid, NotFound, TooMuch


def session_needed() -> Forbidden:
    return Forbidden(
        "session_needed",
        "This is an agent's base key; it opens sessions and does nothing else.",
        repair="POST /v1/agent-sessions with the markings you need, then use the session's key here.",
    )


def unknown_tool(name: str) -> NotFound:
    return NotFound("unknown_tool", f"There is no tool {name[:64]}.", repair="List the tools again.")


def invalid_arguments(message: str, path: str) -> Invalid:
    return Invalid(
        "invalid_arguments", message, path=path or "arguments", repair="Correct this argument; the tool's input schema has the rules."
    )


def result_too_large(bytes_max: int) -> TooMuch:
    return TooMuch("result_too_large", f"The result is larger than {bytes_max} bytes.", repair="Ask for fewer fields or a narrower filter.")
