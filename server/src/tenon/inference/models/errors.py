"""What can go wrong with models.

TenonError
├── Invalid   unsafe_base_url, invalid_name, invalid_marking, invalid_timeout, invalid_credential, invalid_routes, unknown_endpoint
├── NotFound  endpoint_not_found, model_not_found
└── Conflict  endpoint_name_taken, endpoint_in_use
"""

from __future__ import annotations

from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound


def unsafe_base_url(reason: str) -> Invalid:
    """A base URL that a gateway must not be sent to."""
    return Invalid(
        ErrorCode.UNSAFE_BASE_URL, reason, path="base_url", repair="Give the server's own address, such as https://models.example.com/v1."
    )


def endpoint_not_found() -> NotFound:
    return NotFound(ErrorCode.ENDPOINT_NOT_FOUND, "There is no such endpoint.")


def model_not_found() -> NotFound:
    return NotFound(ErrorCode.MODEL_NOT_FOUND, "There is no such model.")


def endpoint_name_taken(name: str) -> Conflict:
    return Conflict(ErrorCode.ENDPOINT_NAME_TAKEN, f"An endpoint named {name} exists already.", path="name")


def endpoint_in_use(models: list[str]) -> Conflict:
    return Conflict(
        ErrorCode.ENDPOINT_IN_USE,
        f"Models still route to this endpoint: {', '.join(models)}.",
        repair="Change or delete those models first.",
        details={"models": models},
    )
