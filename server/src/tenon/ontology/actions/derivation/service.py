"""Derive a diff by making the real edits. The caller rolls them back (a dry run) or commits them (an execution).

Both use the same steps, so they cannot differ: load → lock → check preconditions → plan → write → check links → diff.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenon.kit.database import WriteSession
from tenon.kit.errors import Conflict, ErrorCode, Invalid
from tenon.ontology.actions.contracts import Diff
from tenon.ontology.actions.derivation.contracts import ActionInputs, EditPlan
from tenon.ontology.actions.derivation.edit_application import apply_plan
from tenon.ontology.actions.derivation.edit_planning import plan_edits
from tenon.ontology.actions.derivation.inverse_planning import plan_inverse
from tenon.ontology.actions.language.compiler import CompiledAction
from tenon.ontology.schema.contracts import Ontology


async def derive_diff(session: WriteSession, compiled: CompiledAction, inputs: ActionInputs) -> Diff:
    """Make the action's edits in this transaction; the diff that they made. Raises TenonErrors that say what is wrong and how to repair it."""
    plan = await plan_edits(session, compiled, inputs)
    _check_size(plan, compiled.action.name, compiled.action.objects_max)
    return await apply_plan(session, compiled.ontology, plan, inputs)


async def derive_inverse_diff(session: WriteSession, ontology: Ontology, inverse: Diff, inputs: ActionInputs) -> Diff:
    """Make the edits of an inverse diff. Raises Conflict `rollback_conflict` naming object, property, current and expected value."""
    plan = await plan_inverse(session, ontology, inverse)
    return await apply_plan(session, ontology, plan, inputs)


async def dry_run(session: WriteSession, derive: Callable[[], Awaitable[Diff]]) -> Diff:
    """Derive a diff inside a savepoint and roll the edits back."""
    try:
        async with session.savepoint():
            raise _DryRunEnded(await derive())
    except _DryRunEnded as ended:
        return ended.diff


class _DryRunEnded(Exception):
    """Leaves the savepoint by an exception, which rolls it back."""

    def __init__(self, diff: Diff) -> None:
        super().__init__()
        self.diff = diff


def _check_size(plan: EditPlan, action_type: str, objects_max: int) -> None:
    if plan.size > objects_max:
        raise Invalid(
            ErrorCode.TOO_MANY_OBJECTS,
            f"This would change {plan.size:,} objects; {action_type} may change at most {objects_max:,}.",
            repair="Choose a smaller set.",
            details={"objects": plan.size, "limit": objects_max},
        )
    if not plan.size:
        raise Conflict(
            ErrorCode.NOTHING_CHANGES, "Nothing would change.", repair="Check the parameters: the objects are in this state already."
        )
