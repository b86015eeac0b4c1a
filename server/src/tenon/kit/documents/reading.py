"""Reading a plain value with a path: each method takes what it can, and notes a problem for what it cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tenon.kit.errors import ErrorCode, Invalid

NAME_LENGTH_MAX = 48
DESCRIPTION_LENGTH_MAX = 1_000
PROBLEMS_SHOWN_MAX = 200
_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: a stable code, where in the document, and a sentence a person can act on."""

    code: str
    path: str  # "object_types.flight.properties.origin.type"
    message: str


def refusal(code: ErrorCode, sentence: str, problems: Sequence[Problem], repair: str) -> Invalid:
    """One refusal for a document's problems: the first in the sentence, all of them (up to a limit) in `details`."""
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    details = {"problems": [asdict(problem) for problem in problems[:PROBLEMS_SHOWN_MAX]], "problem_count": len(problems)}
    return Invalid(code, f"{sentence} {first.path}: {first.message}{more}", path=first.path, repair=repair, details=details)


@dataclass(slots=True)
class Problems:
    """Every problem found so far, in document order."""

    entries: list[Problem] = field(default_factory=list)

    def add(self, code: str, path: str, message: str) -> None:
        """Note one problem."""
        self.entries.append(Problem(code, path, message))


@dataclass(slots=True)
class Reader:
    """One mapping of the document, its path, and where its problems go."""

    value: dict[str, Any]
    path: str
    problems: Problems

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, code: str, key: str, message: str) -> None:
        """Note a problem with one key."""
        self.problems.add(code, self.at(key), message)

    def only(self, *known: str) -> None:
        """Refuse keys that nobody reads: a typo must not pass silently."""
        for key in self.value:
            if key not in known:
                self.wrong("unknown_key", str(key), f"`{key}` is not known here; known are {', '.join(known)}.")

    def text(self, key: str, default: str = "", *, length_max: int = DESCRIPTION_LENGTH_MAX) -> str:
        """A text, or the default."""
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > length_max or "\x00" in value:
            self.wrong("not_text", key, f"This must be text of at most {length_max} characters.")
            return default
        return value

    def flag(self, key: str, default: bool) -> bool:
        """true or false, or the default."""
        value = self.value.get(key, default)
        if not isinstance(value, bool):
            self.wrong("not_boolean", key, "This must be true or false.")
            return default
        return value

    def integer(self, key: str, default: int, minimum: int, maximum: int) -> int:
        """An integer within bounds, or the default."""
        value = self.value.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            self.wrong("not_integer", key, f"This must be a whole number from {minimum} to {maximum}.")
            return default
        return value

    def number(self, key: str, limit: float) -> float | None:
        """A number of at most `limit` either way, or None."""
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not -limit <= value <= limit:
            self.wrong("not_number", key, f"This must be a number between -{limit:g} and {limit:g}.")
            return None
        return float(value)

    def words(self, key: str, *, count_max: int, length_max: int) -> tuple[str, ...]:
        """A list of different texts; a single text stands for a list of one."""
        value = self.value.get(key, [])
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) and 0 < len(item) <= length_max for item in items):
            self.wrong("not_a_list", key, f"This must be a list of texts of 1 to {length_max} characters.")
            return ()
        if len(set(items)) != len(items):
            self.wrong("repeated", key, "A value stands in this list twice.")
        if len(items) > count_max:
            self.wrong("too_many", key, f"At most {count_max} values are allowed.")
            return ()
        return tuple(items)

    def section(self, key: str, count_max: int) -> Iterator[tuple[str, Reader]]:
        """The named entries of a mapping, each as a reader of its own."""
        value = self.value.get(key)
        if value is None:
            return
        if not isinstance(value, dict):
            self.wrong("not_a_mapping", key, "This must be a mapping of names.")
            return
        if len(value) > count_max:
            self.wrong("too_many", key, f"{len(value)} entries; at most {count_max} are allowed.")
            return
        for name, entry in value.items():
            path = f"{self.at(key)}.{name}"
            if isinstance(entry, dict):
                yield str(name), Reader(entry, path, self.problems)
            else:
                self.problems.add("not_a_mapping", path, "This must be a mapping.")


def check_name(problems: Problems, path: str, name: str, reserved: frozenset[str] = frozenset()) -> bool:
    """Whether a name is snake_case, short enough and free."""
    if not _NAME.fullmatch(name) or len(name) > NAME_LENGTH_MAX:
        rule = f"snake_case (a-z, 0-9, _), start with a letter and have at most {NAME_LENGTH_MAX} characters"
        problems.add("bad_name", path, f"`{name[:60]}` must be {rule}.")
        return False
    if name in reserved:
        problems.add("reserved_name", path, f"`{name}` is a reserved word.")
        return False
    return True


def check_distinct(problems: Problems, path: str, names: Sequence[str]) -> None:
    """No two names that differ only in underscores: GraphQL and the SDKs write them in camelCase."""
    seen: dict[str, str] = {}
    for name in names:
        folded = name.replace("_", "")
        if folded in seen:
            problems.add("name_taken", f"{path}.{name}", f"`{name}` and `{seen[folded]}` would be the same name in GraphQL.")
        seen[folded] = name
