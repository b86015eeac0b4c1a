"""The lint of layers inside a crate: each kind of upward use is named, each downward one is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.lints import rust_layers

LIB = "mod base;\nmod upper;\npub use upper::Upper;\n"


def crate(folder: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return rust_layers.check_crate(folder)


@pytest.mark.parametrize(
    "use",
    [
        "use crate::upper::Upper;",
        "use crate::{upper::{Other, Upper as U}};",
        "use super::upper;",
        "use crate::Upper;",
        "fn f() -> crate::upper::Upper { todo() }",
        "impl From<crate::upper::Upper> for X {}",
        "use crate::upper::*;",
    ],
)
def test_a_use_of_a_module_below_in_the_list_is_named(tmp_path: Path, use: str) -> None:
    problems = crate(tmp_path, {"lib.rs": LIB, "base.rs": use, "upper.rs": "pub struct Upper;\npub struct Other;"})
    assert len(problems) == 1
    assert "base uses upper, which is declared below it" in problems[0]


@pytest.mark.parametrize(
    "text",
    [
        "use crate::base::Base;",
        "use super::base;",
        "// crate::upper is only spoken of\nconst TEXT: &str = \"crate::upper::Upper\";",
        "#[cfg(test)]\nmod tests { use crate::last::Last; }",
        "use self::child::Child;\nmod child { pub struct Child; }",
        "use std::io;",
    ],
)  # fmt: skip
def test_a_use_of_what_stands_above_is_allowed(tmp_path: Path, text: str) -> None:
    lib = "mod base;\nmod upper;\nmod last;\n"
    assert crate(tmp_path, {"lib.rs": lib, "base.rs": "pub struct Base;", "upper.rs": text, "last.rs": "pub struct Last;"}) == []


def test_an_item_of_the_parents_file_is_out_of_a_childs_reach(tmp_path: Path) -> None:
    files = {"lib.rs": "mod a;\n", "a/mod.rs": "mod b;\npub struct Owner;", "a/b.rs": "use super::Owner;"}
    problems = crate(tmp_path, files)
    assert len(problems) == 1
    assert "a::b uses an item of a" in problems[0]


def test_a_re_export_is_followed_to_the_module_that_defines_the_item(tmp_path: Path) -> None:
    files = {
        "lib.rs": "mod a;\nmod b;\n",
        "a/mod.rs": "mod deep;\npub use deep::Deep;",
        "a/deep.rs": "pub struct Deep;",
        "b.rs": "use crate::a::Deep;",
    }
    assert crate(tmp_path, files) == []


def test_layers_inside_a_folder_are_held_too(tmp_path: Path) -> None:
    files = {
        "lib.rs": "mod a;\n",
        "a/mod.rs": "mod first;\nmod second;",
        "a/first.rs": "use super::second::X;",
        "a/second.rs": "pub struct X;",
    }
    assert len(crate(tmp_path, files)) == 1
