"""Every documented command runs as it stands in the page, and prints what the page says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, Stack
from tests.docs.blocks import REASONS, Block, blocks, missing_line, pages

RUN = [page for page in pages() if any(block.skip is None for block in blocks(page.read_text()))]
MARK = "::tenon-docs-block "
ANSI_OFF = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page(stack: Stack, page: Path) -> None:
    run = [block for block in blocks(page.read_text()) if block.skip is None]
    script = "\n".join(f"echo '{MARK}{number}'\n{block.commands}" for number, block in enumerate(run))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,  # as a reader; what a page writes goes to /tmp
        env=os.environ | stack.environment | ANSI_OFF,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    printed = done.stdout.split(MARK)[1:]
    where = f"{page.relative_to(ROOT)}:{run[max(len(printed) - 1, 0)].line}"
    assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{done.stdout[-3000:]}"
    for block, text in zip(run, printed, strict=True):
        missing = missing_line(text, block.output)
        assert missing is None, f"{page.relative_to(ROOT)}:{block.line} does not print\n{missing}\nbut\n{text[-3000:]}"


def test_each_reason_for_a_skip_is_used() -> None:
    used = {block.skip for page in pages() for block in blocks(page.read_text())}
    assert used >= REASONS.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```sh\nmake up", "does not end"),
        ("```\nmake up\n```", "says what it is in"),
        ("```bash\nmake up\n```", "are ```sh"),
        ("<!-- test: skip no reason -->\n```sh\nmake up\n```", "not `skip` with a reason"),
        ("<!-- test: output -->\n```text\nup\n```", "no block above"),
        ("<!-- test: skip starts the installation -->\n\n```sh\nmake up\n```", "right before"),
        ("<!-- test: output -->\n```yaml\nup: 1\n```", "no block above"),
    ],
)
def test_a_comment_that_says_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        blocks(text)


def test_blocks_and_what_they_print() -> None:
    text = "1. x\n\n   ```sh\n   a\n   b\n   ```\n\n<!-- test: output -->\n```text\none … two\n\n[three]\n```\n"
    assert blocks(text) == [Block(3, "a\nb", None, ["one … two", "[three]"])]
    assert missing_line("one and two\n[three]\n", ["one … two", "[three]"]) is None
    assert missing_line("[three]\none and two\n", ["one … two", "[three]"]) == "[three]"
    assert missing_line("one\ntwo", ["one … two"]) == "one … two"
