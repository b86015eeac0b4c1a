"""The walls and lints, each seen to fail on purpose: a check that cannot fail is a defect."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.lints import tidy

BIN = ROOT / ".venv" / "bin"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The server's sources and the lints, to break."""
    shutil.copytree(ROOT / "server" / "src", tmp_path / "server" / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tools" / "lints", tmp_path / "tools" / "lints", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tools" / "__init__.py").touch()
    shutil.copy(ROOT / "server" / "pyproject.toml", tmp_path / "server" / "pyproject.toml")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def walls(copy: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": f"{copy}/server/src:{copy}", "PATH": "/usr/bin:/bin"}
    command = [str(BIN / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=copy / "server", env=environment, capture_output=True, text=True, check=False)


def test_the_walls_stand(copy: Path) -> None:
    done = walls(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("where", "line", "contract"),
    [
        ("kit/clock.py", "import tenon.core.context", "Floors"),
        ("ontology/schema/limits.py", "import tenon.inference.models", "Floors"),
        ("core/context/contracts.py", "import tenon.core.policy", "Core"),
        ("core/identity/contracts.py", "import tenon.core.identity.service", "Slice"),
        ("ontology/objects/service.py", "import tenon.ontology.schema.repository", "private"),
        ("core/identity/rest.py", "import tenon.core.identity.repository", "private"),
        ("ontology/schema/service.py", "import tenon.ontology.objects.service", "cycles"),
        ("core/tenancy/service.py", "import fastapi", "web framework"),
        ("new_room.py", "", "Floors"),
    ],
)
def test_an_import_through_a_wall_is_named(copy: Path, where: str, line: str, contract: str) -> None:
    file = copy / "server" / "src" / "tenon" / where
    file.write_text((file.read_text() if file.exists() else '"""New."""') + f"\n{line}\n")
    done = walls(copy)
    assert done.returncode != 0
    broken = done.stdout[done.stdout.index("Broken") :] if "Broken" in done.stdout else done.stdout + done.stderr
    assert contract in broken or "new_room" in broken


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("server/src/tenon/kit/x.py", "x = 1\n" * 601, "601 lines"),
        ("server/src/tenon/kit/utils.py", "", "says nothing"),
        ("server/src/tenon/kit/x/__init__.py", "x = 1\n", "opens with its contract"),
        ("server/src/tenon/kit/x.py", "def long():\n" + "    x = 1\n" * 70, "71 lines"),
        ("gateway/crates/x/src/lib.rs", "pub mod y;\n", "opens with its contract"),
        ("gateway/crates/x/src/y.rs", "fn long() {\n" + "    y();\n" * 70 + "}\n", "72 lines"),
    ],
)
def test_the_tidy_test_sees(name: str, text: str, said: str) -> None:
    problems = tidy.check_file(name, text)
    assert len(problems) == 1
    assert said in problems[0]


def test_the_tidy_test_wants_the_names_of_modules_listed() -> None:
    service, clock = "server/src/tenon/core/policy/service.py", "server/src/tenon/kit/clock.py"
    assert tidy.check_modules([service, clock], "# comment\nclock\n") == []
    (unlisted,) = tidy.check_modules([service, clock], "")
    assert "`clock` is not listed" in unlisted
    (stale,) = tidy.check_modules([service], "clock\n")
    assert "no module is called `clock`" in stale


def test_the_tidy_test_counts_the_modules_of_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidy, "PACKAGE_MODULES_MAX", 1)
    names = ["server/src/tenon/core/policy/service.py", "server/src/tenon/core/policy/contracts.py"]
    (crowded,) = tidy.check_modules(names, "")
    assert "server/src/tenon/core/policy: 2 modules" in crowded


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("from datetime import datetime\n\nnow = datetime.now()\n", "TID251"),
        ("print('x')\n", "T201"),
        ("import logging\n\nlog = logging.getLogger()\n", "TID251"),
    ],
)
def test_ruffs_bans_hold(copy: Path, code: str, rule: str) -> None:
    file = copy / "server" / "src" / "tenon" / "kit" / "banned.py"
    file.write_text(code)
    done = subprocess.run(
        [str(BIN / "ruff"), "check", "--no-cache", "--config", str(copy / "pyproject.toml"), str(file)],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert rule in done.stdout


def test_mypy_is_strict(tmp_path: Path) -> None:
    (tmp_path / "untyped.py").write_text("def f(x):\n    return x\n")
    done = subprocess.run(
        [str(BIN / "mypy"), "--config-file", str(ROOT / "server" / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache"), "untyped.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "no-untyped-def" in done.stdout, done.stdout + done.stderr


def test_a_crate_that_is_banned_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tools.lints import cargo_bans

    assert cargo_bans.main() == 0
    monkeypatch.setitem(cargo_bans.BANNED, "hyper", "for this test")
    assert cargo_bans.main() == 1
    assert "hyper is banned: for this test" in capsys.readouterr().out
