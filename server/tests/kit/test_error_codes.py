"""Error codes: each one is raised, with the class of its kind, and documented; what is refused for good is never 429."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenon.kit import errors
from tenon.kit.errors import ErrorCode, ErrorKind, Invalid, NotFound, TenonError, http_status, retry_after_seconds

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "server" / "src" / "tenon"
CLASSES = {
    cls.__name__: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, TenonError) and cls is not TenonError
}


def source_trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        if "generated" not in path.parts and path.parent.name != "errors":
            yield path, ast.parse(path.read_text())


def codes_in(tree: ast.AST) -> Iterator[ErrorCode]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ErrorCode" and node.attr.isupper():
            yield ErrorCode[node.attr]


def raised_codes() -> Iterator[tuple[str, ErrorCode, str]]:
    """(where, code, class) of every call like `Invalid(ErrorCode.X, …)`."""
    for path, tree in source_trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES and node.args:
                for code in codes_in(node.args[0]):
                    yield f"{path.relative_to(SOURCE)}:{node.lineno}", code, node.func.id


def test_every_raised_code_has_the_kind_of_its_class() -> None:
    raised = list(raised_codes())
    assert len(raised) > 100
    assert [where for where, code, name in raised if code.kind is not CLASSES[name].kind] == []


def test_every_code_is_used() -> None:
    used = {code for _, tree in source_trees() for code in codes_in(tree)}
    assert set(ErrorCode) - used == set()


def test_an_exception_refuses_a_code_of_another_kind() -> None:
    with pytest.raises(TypeError, match="cannot carry it"):
        NotFound(ErrorCode.INVALID_CURSOR, "No.")


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_is_in_the_contract_and_on_the_page(code: ErrorCode) -> None:
    contract = json.loads((ROOT / "contracts" / "error-codes.json").read_text())["control_plane"]
    assert code.value in {entry["code"] for entry in contract}
    assert f"- `{code.value}`: {code.meaning}" in (ROOT / "docs" / "reference" / "error-codes.md").read_text()
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code.value)
    assert code.meaning.endswith(".")
    assert code.remedy.endswith(".")


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_only_what_ends_by_itself_says_when_to_retry(kind: ErrorKind) -> None:
    codes = [code for code in ErrorCode if code.kind is kind]
    transient = kind in (ErrorKind.TOO_MANY_REQUESTS, ErrorKind.UNAVAILABLE)
    assert all((retry_after_seconds(code) is not None) == transient for code in codes)
    assert all((http_status(code) in (429, 503)) == transient for code in codes)


@pytest.mark.parametrize(
    "code",
    [code for code in ErrorCode if re.search(r"too_(deep|many|large|long)", code.value) and code is not ErrorCode.TOO_MANY_STREAMS],
)
def test_a_fixed_limit_is_a_bad_request(code: ErrorCode) -> None:
    assert http_status(code) == (413 if code is ErrorCode.BODY_TOO_LARGE else 400)


def test_the_public_shape_leaves_out_what_is_absent() -> None:
    assert Invalid(ErrorCode.INVALID_CURSOR, "No.").as_dict() == {"code": "invalid_cursor", "message": "No."}
