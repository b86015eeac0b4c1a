"""From YAML text to plain values, safely: no tags, no aliases, no duplicate keys, bounded size and depth."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tenon.kit.documents.reading import Problem
from tenon.kit.errors import ErrorCode, Invalid

DOCUMENT_BYTES_MAX = 1_000_000
DOCUMENT_DEPTH_MAX = 16
DOCUMENT_NODES_MAX = 50_000


class Unreadable(Invalid):
    """The text is not a document at all; `problem` says why, for the reader that gives it its own code."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(ErrorCode.DOCUMENT_UNREADABLE, problem.message, path=problem.path)
        self.problem = problem


class _Loader(yaml.SafeLoader):
    """The safe loader without dates and octal surprises: a scalar is a string, an integer, a float, a boolean or null."""


# YAML 1.2's core rules: `no` (Norway), `010` and `1:30` are text, as anybody reads them.
_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9]{0,30})$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?$"), list("-0123456789")
)


def load(text: str) -> dict[str, Any]:
    """The document's top-level mapping. Raises Unreadable with the line of what is wrong."""
    if len(text.encode()) > DOCUMENT_BYTES_MAX:
        raise _refused("document_too_large", f"The document is larger than {DOCUMENT_BYTES_MAX:,} bytes.")
    loader = _Loader(text)
    try:
        node = _checked_node(loader, text)
        value = loader.construct_document(node) if node else None
    except (yaml.YAMLError, ValueError) as error:
        mark: Any = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise _refused("not_yaml", f"{where}{getattr(error, 'problem', None) or 'the text is not YAML'}.") from None
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise _refused("not_a_mapping", "The document must be a mapping with `object_types` at its top.")
    return value


def _checked_node(loader: _Loader, text: str) -> yaml.Node | None:
    # Events first: composing a deep document recurses, and an alias could blow up a small one.
    depth = count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise _refused("alias_refused", f"line {line}: aliases (`*name`) are not allowed; write the value out.")
        if isinstance(event, yaml.NodeEvent):
            count += 1
            if getattr(event, "tag", None) is not None:
                raise _refused("tag_refused", f"line {line}: tags (`!name`) are not allowed.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DOCUMENT_DEPTH_MAX or count > DOCUMENT_NODES_MAX:
            limits = f"{DOCUMENT_DEPTH_MAX} levels or more than {DOCUMENT_NODES_MAX:,} values"
            raise _refused("document_too_deep", f"line {line}: deeper than {limits}.")
    node = loader.get_single_node()
    if node:
        _refuse_duplicates(node)
    return node


def _refuse_duplicates(node: yaml.Node) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:int"):
                raise _refused("key_not_text", f"line {line}: keys must be plain words (write `'true':` in quotes).")
            if key.value in seen:
                raise _refused("duplicate_key", f"line {line}: `{key.value}` stands here twice.")
            seen.add(key.value)
            _refuse_duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item)


def _refused(code: str, message: str) -> Unreadable:
    return Unreadable(Problem(code, "$", message))
