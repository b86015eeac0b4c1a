"""Results that fit: a JSON object within a size that a model can take, and a note when something was left out."""

from __future__ import annotations

import json
from typing import Any

from tenon.agents.tools.errors import result_too_large
from tenon.kit import canonical

RESULT_BYTES_MAX = 64_000
# Lists that may be cut, and what stands for what is missing.
_CUTTABLE = {
    "items": "Ask again with a smaller `first` or fewer `fields`; there is no cursor to the rest of a page that was cut.",
    "groups": "Ask again with a smaller `first` or a narrower filter.",
    "diff": "`summary` counts all of it; an approver sees the whole diff.",
    "object_types": "Search, get and aggregate tools name their own properties.",
}


def truncated_to_fit(answer: bytes | dict[str, Any]) -> dict[str, Any]:
    """The answer as an object of at most RESULT_BYTES_MAX; `truncated` says what was cut. Raises Invalid when nothing can be."""
    size = len(answer) if isinstance(answer, bytes) else None
    result = json.loads(answer) if isinstance(answer, bytes) else canonical.plain(answer)
    if not isinstance(result, dict):
        result = {"value": result}
    if (size or _size(result)) <= RESULT_BYTES_MAX:
        return result
    for name, advice in _CUTTABLE.items():
        if isinstance(result.get(name), list) and (cut := _cut(result, name, advice)):
            return cut
    raise result_too_large(RESULT_BYTES_MAX)


def _cut(result: dict[str, Any], name: str, advice: str) -> dict[str, Any] | None:
    """The answer with as many items of one list as fit; None when not even without them it does."""
    all_items = result[name]
    cut = {key: value for key, value in result.items() if key != "next"}
    note = {"list": name, "kept": 0, "of": len(all_items), "note": f"The result was too large and is cut. {advice}"}
    cut |= {name: [], "truncated": note}
    room = RESULT_BYTES_MAX - _size(cut) - 16  # for the digits of `kept`
    if room < 0:
        return None
    for item in all_items:
        room -= _size(item) + 2
        if room < 0:
            break
        cut[name].append(item)
    note["kept"] = len(cut[name])
    return cut


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())
