"""What can go wrong with an action.

TenonError
├── NotFound    action_type_not_found, object_not_found, proposal_not_found
├── Invalid     unknown_parameter, missing_parameter, invalid_parameter, parameters_too_large, invalid_value, expression_failed,
│               selection_too_large, too_many_objects, invalid_comment
├── Forbidden   not_permitted, cannot_see_diff, would_lose_sight, object_not_editable
└── Conflict    precondition_failed, conflicting_edits, nothing_changes, link_target_missing, dependents_exist, object_exists,
                objects_busy, not_pending, already_decided, hash_mismatch, proposal_expired, not_executable,
                proposal_moved, rollback_conflict, not_reversible
"""

from __future__ import annotations

from tenon.kit.errors import Conflict, ErrorCode, Forbidden, NotFound


def proposal_not_found() -> NotFound:
    """No such proposal in the caller's tenant."""
    return NotFound(ErrorCode.PROPOSAL_NOT_FOUND, "There is no such proposal.")


def not_pending(state: str) -> Conflict:
    """The proposal does not wait for a decision."""
    return Conflict(
        ErrorCode.NOT_PENDING, f"The proposal is {state.replace('_', ' ')} and is not waiting for a decision.", details={"state": state}
    )


def already_decided() -> Conflict:
    """A principal decides on a proposal only once."""
    return Conflict(ErrorCode.ALREADY_DECIDED, "You have already decided on this proposal.")


def hash_mismatch() -> Conflict:
    """The approver read a different diff."""
    return Conflict(
        ErrorCode.HASH_MISMATCH,
        "The hash does not match this proposal's diff.",
        path="hash",
        repair="Read the proposal again and send the hash of what you read.",
    )


def expired() -> Conflict:
    """The proposal has passed its expiry time."""
    return Conflict(ErrorCode.PROPOSAL_EXPIRED, "The proposal has expired.", repair="Propose the action again.")


def cannot_see_diff() -> Forbidden:
    """An approver must see the whole diff."""
    return Forbidden(
        ErrorCode.CANNOT_SEE_DIFF, "Parts of this diff are above your clearance.", repair="Ask an approver who may see the whole diff."
    )


def not_executable(state: str) -> Conflict:
    """The proposal is not approved."""
    return Conflict(ErrorCode.NOT_EXECUTABLE, f"The proposal is {state.replace('_', ' ')}, not approved.", details={"state": state})


def not_reversible(message: str) -> Conflict:
    """The proposal has no inverse."""
    return Conflict(ErrorCode.NOT_REVERSIBLE, message, repair="Propose a new action instead.")
