"""The lint of words: each private word is named with what to write instead, and plain English passes."""

from __future__ import annotations

import pytest

from tools.lints import words


@pytest.mark.parametrize("word", [*words.NOWHERE, *words.NOWHERE_PHRASES])
@pytest.mark.parametrize("name", ["docs/page.md", "server/src/tenon/kit/x.py", "gateway/crates/x/src/y.rs"])
def test_a_word_that_stands_nowhere_is_named_in_a_comment(name: str, word: str) -> None:
    mark = "//" if name.endswith(".rs") else "#"
    problems = words.check_file(name, f"{mark} It is {word} here.\n")
    assert len(problems) == 1
    assert f"“{word}”" in problems[0]


@pytest.mark.parametrize("word", words.IDENTIFIERS)
@pytest.mark.parametrize(("name", "line"), [("x.py", "{} = 1\n"), ("x.rs", "fn {}() {{}}\n")])
def test_a_word_that_names_nothing_is_found_as_part_of_an_identifier(name: str, line: str, word: str) -> None:
    for identifier in (word, f"first_{word}", f"First{word.capitalize()}"):
        problems = words.check_file(name, line.format(identifier))
        assert [f"`{identifier}`" in problem for problem in problems] == [True]


@pytest.mark.parametrize("word", words.WHOLE_IDENTIFIERS)
def test_a_variable_that_names_nothing_is_found(word: str) -> None:
    assert len(words.check_file("x.py", f"{word} = 1\n")) == 1
    assert words.check_file("x.py", f"{word}_rows = 1\n") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.md", "Ask for the well-known page; look at the table and leave the rest. A hotel.\n"),
        ("x.py", 'note = "ask and look"  # you may ask\n'),
        ("x.rs", "// a standing connection\nlet text = \"what was given\";\n"),
        ("x.py", "def test_a_name_that_leads_where_nobody_may_look_is_refused(): ...\n"),
        ("x.py", "from hypothesis import given\n"),
    ],
)  # fmt: skip
def test_plain_english_passes(name: str, text: str) -> None:
    assert words.check_file(name, text) == []
