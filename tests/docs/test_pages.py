"""Links lead somewhere, paths that a page names exist, and generated pages are what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.blocks import pages
from tools import generate_docs

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
# A first folder that makes a word in code a path of this checkout.
_TOP = ("contracts/", "docs/", "examples/", "gateway/", "server/", "tests/", "tools/", ".ci/")


def anchors(text: str) -> set[str]:
    """The anchors of a page: its headings as GitHub names them, and explicit ids."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    names = {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in _HEADING.findall(text)}
    return names | set(re.findall(r'<a id="([^"]+)"', text))


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    broken = []
    for link in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


def missing_paths(page: Path) -> list[str]:
    """Paths in code that do not exist. `…`, `<…>`, `*` and `{a,b}` stand for something: the folder before them must exist."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    missing = []
    for word in _CODE.findall(text):
        if re.fullmatch(r"tenon(\.[a-z_]+){2,}", word):
            module = ROOT / "server" / "src" / word.replace(".", "/")
            if not (module.is_dir() or module.with_suffix(".py").exists()):
                missing.append(word)
        if not word.startswith(_TOP) or " " in word:
            continue
        path = re.split(r"[…<*{:]", word)[0]
        if path != word:
            path = path.rpartition("/")[0]
        if not (ROOT / path).exists():
            missing.append(word)
    return missing


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    assert not broken_links(page)
    assert not missing_paths(page)


def test_a_broken_link_and_a_missing_path_are_named(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[good](#a-title) [bad](#other) [gone](gone.md)\n"
        "`server/src/tenon` `server/src/nothing.py` `docs/{a,b}/c` `tenon.kit.ids` `tenon.kit.gone`"
    )
    assert broken_links(page) == ["#other", "gone.md"]
    assert missing_paths(page) == ["server/src/nothing.py", "tenon.kit.gone"]


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text())}
    indexed_by_folder = {"decisions"}
    for page in (ROOT / "docs").rglob("*.md"):
        if page != index and page.parent.name not in indexed_by_folder:
            assert page in linked, page


@pytest.mark.parametrize(("path", "text"), generate_docs.pages().items(), ids=lambda value: getattr(value, "name", ""))
def test_generated_pages_are_what_the_code_says(path: Path, text: str) -> None:
    assert path.read_text() == text, "run `make generate`"


def test_every_variable_of_the_commands_is_documented() -> None:
    named = {
        name
        for file in (ROOT / "server" / "src").rglob("*.py")
        for name in re.findall(r'"(TENON_[A-Z_]+)"', file.read_text())
        if not name.startswith("TENON_GATEWAY_") or name in generate_docs.ENVIRONMENT
    }
    described = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert not {name for name in named if f"`{name}`" not in described}
