"""The SQL-owner lint: a table is named only in the SQL of the slice that owns it (contracts/table-owners.json).

It reads every string of server/src that holds SQL. Wrong is a table of another slice, a table that does not exist, a table without its
schema, and a table's name that is put together at run time. Every table of contracts/access.json must have exactly one owner.
Other slices ask the owner through its service, whose answer is a frozen contract.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SQL = re.compile(r"\b(select|insert\s+into|update|delete\s+from|from|join|truncate|lock\s+table|copy)\s", re.IGNORECASE)
# A quote before it makes it a text, such as a setting's or an advisory lock's name.
_QUALIFIED = re.compile(r"(?<!['\"\w.])tenon\.([a-z_][a-z0-9_]*|\{)(\()?", re.IGNORECASE)
_BARE = re.compile(r"\b(?:from|join|into|update|only)\s+([a-z_][a-z0-9_]*)(?![\w.(])", re.IGNORECASE)
_DEFINED = re.compile(
    r"(?:\bwith(?:\s+recursive)?|,)\s*([a-z_][a-z0-9_]*)\s*(?:\([^)]*\)\s*)?as\s+(?:not\s+)?(?:materialized\s*)?\(", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the database has, and whose it is."""

    owners: dict[str, str]  # table -> slice
    tables: frozenset[str]
    functions: frozenset[str]

    @classmethod
    def read(cls, contracts: Path) -> Catalogue:
        """From the checked-in contracts. Raises ValueError for a table with two owners."""
        access = json.loads((contracts / "access.json").read_text())
        owned = json.loads((contracts / "table-owners.json").read_text())["owners"]
        owners: dict[str, str] = {}
        for owner, tables in owned.items():
            for table in tables:
                if table in owners:
                    raise ValueError(f"contracts/table-owners.json: `{table}` belongs to {owners[table]} and to {owner}.")
                owners[table] = owner
        # Daily partitions are checked in as `usage_record_DAY`: they are their parent's.
        tables = {row["name"].removeprefix("tenon.") for row in access["relations"] if not row["name"].endswith("_DAY")}
        functions = {row["name"].split("(")[0].rsplit(".", 1)[-1] for row in access["functions"]}
        return cls(owners, frozenset(tables), frozenset(functions))

    def problems(self) -> list[str]:
        """Tables without owner, and owners of what is no table."""
        unowned = [f"contracts/table-owners.json: `{table}` has no owner." for table in sorted(self.tables - self.owners.keys())]
        unknown = [f"contracts/table-owners.json: there is no table `{table}`." for table in sorted(self.owners.keys() - self.tables)]
        return unowned + unknown


def main() -> int:
    """Check every source file of the control plane."""
    try:
        catalogue = Catalogue.read(ROOT / "contracts")
    except ValueError as error:
        print(error)
        return 1
    problems = catalogue.problems()
    source = ROOT / "server" / "src" / "tenon"
    for path in sorted(source.rglob("*.py")):
        problems += [
            f"server/src/tenon/{path.relative_to(source)}:{said}" for said in check(path.relative_to(source), path.read_text(), catalogue)
        ]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check(path: Path, text: str, catalogue: Catalogue) -> list[str]:
    """What is wrong with one file; `path` is relative to the package `tenon`."""
    owner_here = ".".join(path.parts[:2]).removesuffix(".py")
    problems = []
    for line, sql in _strings(ast.parse(text)):
        if _SQL.search(sql):
            problems += [f"{line}: {said}" for said in _wrong(sql, owner_here, catalogue)]
    return problems


def _wrong(sql: str, here: str, catalogue: Catalogue) -> Iterator[str]:
    for name, call in _QUALIFIED.findall(sql):
        if name == "{":
            yield "a table's name is put together at run time. Write it out, so that its owner can be seen."
        elif call and name in catalogue.functions:
            continue
        elif name not in catalogue.owners:
            yield f"there is no table `tenon.{name}`."
        elif catalogue.owners[name] != here:
            yield f"`tenon.{name}` belongs to {catalogue.owners[name]}. Ask its service instead."
    defined = {name.lower() for name in _DEFINED.findall(sql)}
    for name in _BARE.findall(sql):
        if name.lower() in catalogue.owners and name.lower() not in defined:
            yield f"write `tenon.{name}`, with its schema."


def _strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every string but docstrings, with its line. What an f-string puts in is shown as `{}`."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            yield node.lineno, node.value


if __name__ == "__main__":
    sys.exit(main())
