"""The errors that stop a load. A bad row stops nothing: it is written to the rejects file with its reason.

TenonError
├── Invalid   mapping_invalid        the mapping is wrong; `details.problems` lists every problem with its path
├── NotFound  source_not_found       the file does not exist
├── Invalid   source_unreadable      the file is not CSV, or its header lacks a mapped column
├── Invalid   rows_refused           the database refused rows that our checks let pass
├── Conflict  load_running           another load of this mapping is running
├── Conflict  load_overtaken         another load of this mapping continued from the same checkpoint
├── Conflict  load_interfered        concurrent changes to the same objects kept failing it
└── Conflict  link_target_vanished   a link's target was removed between check and write
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tenon.kit.documents import Problem, refusal
from tenon.kit.errors import Conflict, ErrorCode, Invalid, NotFound

_AGAIN = "Run the same load again: it continues after the last committed batch."


def mapping_invalid(problems: Sequence[Problem]) -> Invalid:
    """The mapping is wrong."""
    return refusal(ErrorCode.MAPPING_INVALID, "The mapping is not valid.", problems, "Correct the named paths; nothing was loaded.")


def source_not_found(path: Path) -> NotFound:
    """The file does not exist."""
    return NotFound(ErrorCode.SOURCE_NOT_FOUND, f"There is no file {path.name} in {path.parent}.", path="file")


def source_unreadable(message: str) -> Invalid:
    """The file is not a CSV file that this mapping can read."""
    return Invalid(ErrorCode.SOURCE_UNREADABLE, message, path="file")


def rows_refused(name: str, lines: tuple[int, int], constraint: str) -> Invalid:
    """Our checks and the table's constraints disagree: that is a defect, and this says where to look."""
    message = f"The database refused rows of {name} between lines {lines[0]} and {lines[1]} ({constraint}). That batch was not written."
    return Invalid(ErrorCode.ROWS_REFUSED, message, repair="Take those rows out of the file, and report this as a defect of Tenon.")


def load_running(name: str) -> Conflict:
    """One load of a mapping at a time."""
    return Conflict(ErrorCode.LOAD_RUNNING, f"The load {name} is running already.", repair="Wait until it has ended.")


def load_overtaken(name: str) -> Conflict:
    """The checkpoint is not where this run left it."""
    return Conflict(
        ErrorCode.LOAD_OVERTAKEN, f"Another run of {name} continued from the same checkpoint. This batch was not written.", repair=_AGAIN
    )


def load_interfered(name: str) -> Conflict:
    """Serialization failures did not stop."""
    return Conflict(ErrorCode.LOAD_INTERFERED, f"Concurrent changes to the same objects made {name} fail too often.", repair=_AGAIN)


def link_target_vanished(link: str) -> Conflict:
    """A target existed when the file was checked and does not any more."""
    return Conflict(ErrorCode.LINK_TARGET_VANISHED, f"A target of the link {link} was removed while the load was running.", repair=_AGAIN)
