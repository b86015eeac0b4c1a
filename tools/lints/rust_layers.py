"""Layers inside a Rust crate: the order of `mod` lines is the order of layers, and a module uses only modules above it in that list.

For every crate of the gateway, and for every folder of modules in it. A module's own items come after its children, so a child may not
use an item that its parent's file defines. Paths are followed through `pub use`. It follows that no two modules use each other.
Test modules (`#[cfg(test)]`) may use anything.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

Name = tuple[str, ...]

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TEXT = re.compile(r'b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\[^\']+|[^\'\\\n])\'', re.DOTALL)
_TEST = re.compile(r"#\[cfg\((?:all\()?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*")
_MODULE = re.compile(r"\b(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*([;{])")
_USE = re.compile(r"(\bpub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);", re.DOTALL)
_PATH = re.compile(r"\b(?:crate|super|self)(?:\s*::\s*\w+)+")


@dataclass
class Module:
    """One module: where it is written, its children in the order of their `mod` lines, and the paths it uses."""

    name: Name
    file: Path
    children: list[str] = field(default_factory=list)
    exports: dict[str, Name] = field(default_factory=dict)
    globs: list[Name] = field(default_factory=list)
    paths: list[Name] = field(default_factory=list)


def main() -> int:
    """Print every use that points up the list, in every crate."""
    problems = [problem for root in sorted(ROOT.glob("gateway/crates/*/src")) for problem in check_crate(root)]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check_crate(source: Path) -> list[str]:
    """What is wrong with the crate in `source` (a folder with `lib.rs`, `main.rs` or both)."""
    problems: list[str] = []
    for root in (source / "lib.rs", source / "main.rs"):
        if root.exists():
            modules: dict[Name, Module] = {}
            read_module(root, source, (), modules)
            problems += [problem for module in modules.values() for problem in check_module(module, modules)]
    return problems


def read_module(file: Path, folder: Path, name: Name, modules: dict[Name, Module]) -> None:
    """Read `file` and the files of its children, which lie in `folder`."""
    text = _COMMENT.sub(" ", _TEXT.sub('""', _comments_out(file.read_text())))
    _read_text(text, file, folder, name, modules)


def _comments_out(text: str) -> str:
    """Line comments that stand alone go first: an apostrophe in one must not open a character literal."""
    return "\n".join("" if line.lstrip().startswith("//") else line for line in text.split("\n"))


def _read_text(text: str, file: Path, folder: Path, name: Name, modules: dict[Name, Module]) -> None:
    module = modules[name] = Module(name, file)
    text = _without_tests(text)
    inline: list[tuple[str, str]] = []
    while match := next((m for m in _MODULE.finditer(text) if m[2] == "{"), None):
        end = _closing(text, match.end() - 1)
        inline.append((match[1], text[match.end() : end]))
        text = text[: match.start()] + f"mod {match[1]};" + text[end + 1 :]
    module.children = [match[1] for match in _MODULE.finditer(text)]
    _read_uses(text, module)
    bodies = dict(inline)
    for child in module.children:
        below = folder / child
        if child in bodies:
            _read_text(bodies[child], file, below, (*name, child), modules)
        elif (path := folder / f"{child}.rs").exists() or (path := below / "mod.rs").exists():
            read_module(path, below, (*name, child), modules)


def _without_tests(text: str) -> str:
    """The text without the items that are compiled for tests only."""
    while match := _TEST.search(text):
        semicolon, brace = text.find(";", match.end()), text.find("{", match.end())
        by_semicolon = semicolon >= 0 and (brace < 0 or semicolon < brace or text[match.end() :].startswith("use"))
        end = semicolon if by_semicolon else _closing(text, brace)
        text = text[: match.start()] + text[end + 1 :]
    return text


def _closing(text: str, opening: int) -> int:
    depth = 0
    for index in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return len(text) - 1


def _read_uses(text: str, module: Module) -> None:
    """Fill in the paths of `use` lines and of the code; those of `pub use` are re-exports, not uses."""
    for match in _USE.finditer(text):
        for path, alias in _leaves(re.sub(r"\s+", " ", match[2]).strip()):
            absolute = _absolute(path, module)
            if absolute is None:
                continue
            if not match[1]:
                module.paths.append(absolute)
            elif path[-1] == "*":
                module.globs.append(absolute[:-1])
            else:
                module.exports[alias] = absolute
    for match in _PATH.finditer(_USE.sub(" ", text)):
        if absolute := _absolute(tuple(re.split(r"\s*::\s*", match[0])), module):
            module.paths.append(absolute)


def _leaves(tree: str) -> list[tuple[Name, str]]:
    """The paths of a use tree, each with the name it goes by."""
    opening = tree.find("{")
    if opening < 0:
        path, _, alias = tree.partition(" as ")
        segments = tuple(part.strip() for part in path.split("::") if part.strip())
        segments = segments[:-1] if len(segments) > 1 and segments[-1] == "self" else segments
        return [(segments, alias.strip() or segments[-1])] if segments else []
    prefix = tuple(part.strip() for part in tree[:opening].split("::") if part.strip())
    inner = tree[opening + 1 : _closing(tree, opening)]
    leaves: list[tuple[Name, str]] = []
    for part in _parts(inner):
        for path, alias in _leaves(part):
            whole = prefix if path == ("self",) else prefix + path
            leaves.append((whole, whole[-1] if alias == "self" else alias))
    return leaves


def _parts(inner: str) -> list[str]:
    """The members of a group, split at its own commas."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(inner):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(inner[start:index].strip())
            start = index + 1
    return [part for part in (*parts, inner[start:].strip()) if part]


def _absolute(path: Name, module: Module) -> Name | None:
    """The path from the crate's root; `None` where it leads out of the crate."""
    base: Name
    if path[0] == "crate":
        base, path = (), path[1:]
    elif path[0] in {"super", "self"}:
        base = module.name
        while path and path[0] in {"super", "self"}:
            base = base[:-1] if path[0] == "super" else base
            path = path[1:]
    elif path[0] in module.children:
        base = module.name
    else:
        return None
    return base + path


def resolve(path: Name, modules: dict[Name, Module], depth: int = 0) -> Name:
    """The module that defines what `path` names, followed through re-exports."""
    owner: Name = ()
    for index, segment in enumerate(path):
        if (*owner, segment) in modules:
            owner = (*owner, segment)
            continue
        module = modules[owner]
        if segment in module.exports and depth < 20:
            return resolve(module.exports[segment] + path[index + 1 :], modules, depth + 1)
        if segment != "*" and len(module.globs) == 1 and not _defines(module, segment):
            return resolve(module.globs[0] + path[index:], modules, depth + 1) if depth < 20 else owner
        break
    return owner


def _defines(module: Module, item: str) -> bool:
    pattern = rf"\b(?:fn|struct|enum|trait|type|const|static|union|macro_rules!)\s+{re.escape(item)}\b"
    return re.search(pattern, module.file.read_text()) is not None


def check_module(module: Module, modules: dict[Name, Module]) -> list[str]:
    """The uses of one module that point up the list."""
    problems = []
    for target in sorted({resolve(path, modules) for path in module.paths}):
        if target == module.name or target[: len(module.name)] == module.name:
            continue
        common = 0
        while common < min(len(target), len(module.name)) and target[common] == module.name[common]:
            common += 1
        where = f"{_place(module.file)}: {'::'.join(module.name)}"
        if common == len(target):
            problems.append(f"{where} uses an item of {'::'.join(target) or 'the crate root'}, which stands above its own children.")
            continue
        order = modules[target[:common]].children
        if order.index(target[common]) > order.index(module.name[common]):
            problems.append(f"{where} uses {'::'.join(target)}, which is declared below it in {_place(modules[target[:common]].file)}.")
    return problems


def _place(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else file.name


if __name__ == "__main__":
    sys.exit(main())
