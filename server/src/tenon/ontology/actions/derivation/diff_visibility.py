"""What a reader may see of a diff: nothing above the reader's clearance, neither names nor values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenon.core.context import Context
from tenon.ontology.actions.contracts import Diff, ObjectChange, Operation
from tenon.ontology.schema.contracts import ObjectType, Ontology


def property_markings(ontology: Ontology, change: ObjectChange, name: str) -> frozenset[str] | None:
    """The markings of a changed property; None when the ontology no longer has it."""
    object_type = ontology.object_types.get(change.type)
    item = object_type.properties.get(name) if object_type else None
    return item.markings if item else None


def all_markings(ontology: Ontology, diff: Diff, ceiling: frozenset[str]) -> frozenset[str]:
    """Every marking that something about this diff carries."""
    markings = set(ceiling)
    for change in diff.changes:
        for name in {*change.before, *change.after}:
            markings |= property_markings(ontology, change, name) or frozenset()
    return frozenset(markings)


def sees_whole_diff(ctx: Context, ontology: Ontology, diff: Diff, ceiling: frozenset[str]) -> bool:
    """Whether this reader may see every value of the diff, and whatever a session with this ceiling may have put into it."""
    return ctx.sees(ceiling) and all(
        _sees(ctx, ontology, change, name) for change in diff.changes for name in {*change.before, *change.after, *change.key}
    )


def visible_diff(ctx: Context, ontology: Ontology, diff: Diff, ceiling: frozenset[str]) -> list[dict[str, Any]]:
    """The diff as this reader may see it: properties above the clearance are only counted, in `redacted`.

    Without the session's whole ceiling the reader sees nothing that the session wrote.
    """
    sees_written = ctx.sees(ceiling)
    return [_visible_change(ctx, ontology, change, sees_written) for change in diff.changes]


def _sees(ctx: Context, ontology: Ontology, change: ObjectChange, name: str) -> bool:
    markings = property_markings(ontology, change, name)
    return markings is not None and ctx.sees(markings)


def _visible_change(ctx: Context, ontology: Ontology, change: ObjectChange, sees_written: bool) -> dict[str, Any]:
    names = sorted({*change.before, *change.after})
    visible = {name for name in names if _sees(ctx, ontology, change, name)}
    key_visible = sees_written or change.operation is not Operation.CREATE
    view: dict[str, Any] = {
        "type": change.type,
        "id": str(change.id),
        "operation": change.operation.value,
        "key": {name: value for name, value in change.key.items() if key_visible and _sees(ctx, ontology, change, name)},
        "before": {name: change.before[name] for name in names if name in visible and name in change.before},
        "after": {name: change.after[name] for name in names if sees_written and name in visible and name in change.after},
    }
    if hidden_count := len(names) - (len(visible) if sees_written else 0):
        view["redacted"] = hidden_count
    declassifies = {
        name: list(markings) for name, markings in change.declassifies.items() if name in visible and ctx.sees(frozenset(markings))
    }
    if declassifies:
        view["declassifies"] = declassifies
    object_type = ontology.object_types.get(change.type)
    if object_type and sees_written and (links := _moved_links(ctx, ontology, object_type, change, visible)):
        view["links"] = links
    return view


def _moved_links(
    ctx: Context, ontology: Ontology, object_type: ObjectType, change: ObjectChange, visible: set[str]
) -> list[dict[str, Any]]:
    """The links that point elsewhere because their properties change: shown to readers, derived, not hashed."""
    if change.operation is not Operation.UPDATE:
        return []
    links = []
    for link in ontology.links_from[object_type.name].values():
        if ctx.sees(link.markings) and any(ours in visible for ours, _ in link.via):
            ends = {
                end: {theirs: _link_value(change, values, ours) for ours, theirs in link.via}
                for end, values in (("from", change.before), ("to", change.after))
            }
            links.append({"link": link.name, "target": link.target, **ends})
    return links


def _link_value(change: ObjectChange, values: Mapping[str, Any], name: str) -> Any:
    return values[name] if name in values else change.key.get(name)
