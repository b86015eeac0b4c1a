"""Properties: simulation equals execution, a rollback restores the start, preconditions never break, there is no deadlock."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from actions_tenant import ActionsTenant, create_actions_tenant, new_key
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tenon.kit.errors import TenonError

THINGS = """
ontology: 1
object_types:
  thing:
    primary_key: code
    properties:
      code: {type: text, length_max: 100}
      note: {type: text, length_max: 200}
      amount: {type: decimal, scale: 2}
      size: {type: integer}
      ratio: {type: float}
      open: {type: boolean}
      day: {type: date}
      at: {type: timestamp}
      mark: {type: uuid}
      colour: {type: enum, enum: [red, green, blue]}
      group_name: {type: text, length_max: 20, indexed: true}
      balance: {type: integer, required: true}
action_types:
  edit:
    parameters:
      thing: {object: thing}
      note: {type: text, required: false, length_max: 200}
      cents: {type: integer, required: false}
      size: {type: integer, required: false}
      ratio: {type: float, required: false}
      open: {type: boolean, required: false}
      day: {type: date, required: false}
      at: {type: timestamp, required: false}
      mark: {type: uuid, required: false}
      colour: {type: enum, enum: [red, green, blue], required: false}
    edits:
      - update: thing
        set: {note: note, amount: cents, size: size, ratio: ratio, open: open, day: day, at: at, mark: mark, colour: colour}
    approval: {roles: [approver]}
  copy:
    parameters:
      group: {type: text}
      by: {type: integer, minimum: -1000000, maximum: 1000000}
    selects:
      members: {type: thing, where: [{property: group_name, eq: group}]}
    edits:
      - update: members
        as: member
        set: {size: member.balance + by, note: 'member.code + " of " + string(size(members))'}
      - create: thing
        each: members
        as: member
        set: {code: new_id, balance: member.balance + by, at: now, mark: new_id, group_name: '"copies"', day: '"2013-02-08"'}
    approval: {roles: [approver]}
  drop:
    parameters:
      group: {type: text}
    selects:
      members: {type: thing, where: [{property: group_name, eq: group}]}
    edits: [{delete: members}]
    approval: {roles: [approver]}
  transfer:
    parameters:
      source: {object: thing}
      target: {object: thing}
      amount: {type: integer, minimum: 1}
    preconditions:
      - {code: different, check: source.code != target.code, message: Not to itself.}
      - {code: covered, check: source.balance >= amount, message: Not enough.}
    edits:
      - {update: source, set: {balance: source.balance - amount}}
      - {update: target, set: {balance: target.balance + amount}}
    approval: none
  withdraw:
    parameters:
      thing: {object: thing}
    selects:
      funded: {type: thing, count: true, where: [{property: group_name, eq: '"accounts"'}, {property: balance, gt: "0"}]}
    preconditions:
      - {code: two_stay_funded, check: funded > 2 || thing.balance == 0, message: Two keep their balance.}
    edits:
      - {update: thing, set: {balance: "0"}}
    approval: none
"""

INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "note": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60),
        "cents": INTEGERS,
        "size": INTEGERS,
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "open": st.booleans(),
        "day": st.dates().map(lambda day: day.isoformat()),
        "at": st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda at: at.isoformat() + "+00:00"),
        "mark": st.uuids().map(str),
        "colour": st.sampled_from(["red", "green", "blue"]),
    },
)
RELAXED = settings(max_examples=20, phases=[Phase.explicit, Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
async def things(login: Any, tenant_a: Any) -> ActionsTenant:
    """A airline of things with every property type."""
    return await create_actions_tenant(login, tenant_a, THINGS)


async def add(airline: ActionsTenant, group: str, balance: int = 100) -> UUID:
    return await airline.insert("thing", code=new_key(), group_name=group, balance=balance)


async def proposed(airline: ActionsTenant, action_type: str, **parameters: Any) -> dict[str, Any] | None:
    """A proposal, or None when nothing would change; any other refusal is a failure."""
    try:
        return await airline.propose(action_type, **parameters)
    except TenonError as refusal:
        if refusal.code != "nothing_changes":
            raise
        return None


async def executes_and_rolls_back(airline: ActionsTenant, action_type: str, **parameters: Any) -> bool:
    """Execution does exactly what the proposal shows, and rolling back restores the start; False when nothing would change."""
    start = await airline.business_hash()
    proposal = await proposed(airline, action_type, **parameters)
    if proposal is None:
        assert await airline.business_hash() == start
        return False
    assert await airline.business_hash() == start
    executed = await airline.approve(proposal)
    assert executed["state"] == "executed", executed["reason"]
    assert executed["diff"] == proposal["diff"]
    for change in executed["diff"]:
        assert (await airline.read("thing", UUID(change["id"])) is None) == (change["operation"] == "delete")
    inverse = await airline.approve(await airline.roll_back(executed))
    assert inverse["state"] == "executed", inverse["reason"]
    assert await airline.business_hash() == start
    return True


@RELAXED
@given(first=VALUES, second=VALUES)
async def test_any_edit_executes_and_rolls_back(things: ActionsTenant, first: dict[str, Any], second: dict[str, Any]) -> None:
    thing = str(await add(things, "edits"))
    hostile = await proposed(things, "edit", thing=thing, **first)  # what the second edit starts from
    if hostile:
        assert (await things.approve(hostile))["state"] == "executed"
    await executes_and_rolls_back(things, "edit", thing=thing, **second)


@settings(RELAXED, max_examples=8)
@given(count=st.integers(1, 25), by=st.integers(-1_000_000, 1_000_000))
async def test_any_set_executes_and_rolls_back(things: ActionsTenant, count: int, by: int) -> None:
    group = new_key()[:8]
    for _ in range(count):
        await add(things, group)
    assert await executes_and_rolls_back(things, "copy", group=group, by=by)
    assert await executes_and_rolls_back(things, "drop", group=group)


async def settle(airline: ActionsTenant, action_type: str, **parameters: Any) -> str:
    """Run an action that needs no approval; "executed", or the refusal's code."""
    try:
        return str((await airline.propose(action_type, **parameters))["state"])
    except TenonError as refusal:
        return refusal.code


async def test_concurrent_actions_never_break_their_preconditions(things: ActionsTenant) -> None:
    """Random transfers and withdrawals at once, the same objects in both orders: balances stay, two accounts stay funded, no deadlock."""
    ids = [str(await add(things, "accounts", 50)) for _ in range(6)]
    dice, outcomes = random.Random(8), Counter[str]()

    async def worker(seed: int) -> None:
        mine = random.Random(seed)
        for _ in range(12):
            source, target = mine.sample(ids, 2)
            if mine.random() < 0.25:
                outcomes[await settle(things, "withdraw", thing=source)] += 1
            else:
                outcomes[await settle(things, "transfer", source=source, target=target, amount=mine.randint(1, 40))] += 1

    await asyncio.gather(*(worker(dice.randrange(10**9)) for _ in range(6)))
    rows = [await things.read("thing", UUID(id_)) or {} for id_ in ids]
    balances = [row["balance"] for row in rows]
    assert min(balances) >= 0
    assert sum(balance > 0 for balance in balances) >= 2
    assert outcomes["executed"] > 10, outcomes
    # Every refusal has a code; nothing was changed in part.
    assert set(outcomes) <= {
        "executed",
        "precondition_failed",
        "nothing_changes",
        "serialization_conflict",
        "stale",
        "approved",
        "objects_busy",
    }
    withdrawn = 300 - sum(balances)
    assert withdrawn >= 0
    assert await _executed_total(things) == withdrawn


async def _executed_total(airline: ActionsTenant) -> int:
    """What executed withdrawals took, by their own diffs: transfers add up to nothing."""
    total = 0
    async with airline.api.tenant(airline.context("operator").identity) as session:
        rows = await session.rows("select diff from tenon.proposal where state = 'executed' and action_type in ('withdraw', 'transfer')")
    for row in rows:
        for change in row["diff"]:
            total += change["before"]["balance"] - change["after"]["balance"]
    return total
