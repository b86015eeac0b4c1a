"""A plugin of pytest: `--rounds 30` runs each test thirty times."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=1, help="run each test so often")


@pytest.fixture
def round_number(request: pytest.FixtureRequest) -> int:
    """Which round this is."""
    return int(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if (rounds := metafunc.config.getoption("rounds")) > 1:
        metafunc.fixturenames.append("round_number")
        metafunc.parametrize("round_number", range(rounds), indirect=True)
