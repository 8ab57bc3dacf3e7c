"""An exception as a short traceback: what was raised, and where in the person's own code."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import PurePath

from llm_jupyter.filling.steady import steady

MOST_CALLS = 3

_CELL = re.compile(r"ipykernel_\d+|^<ipython-input")
"""Kernels name the code of a cell after their process; a request shall not change with that."""

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_STANDARD_LIBRARY = PurePath(sysconfig.get_paths()["stdlib"])


def short_traceback(error: BaseException) -> str:
    """The last three calls that led to it, those inside of libraries aside, then its type and message."""
    calls = traceback.extract_tb(error.__traceback__)
    own = [call for call in calls if not _is_in_library(call.filename)] or list(calls)
    if isinstance(error, SyntaxError) and error.filename:
        own.append(traceback.FrameSummary(error.filename, error.lineno, "<module>", line=error.text))
    return "\n".join([*(_line(call) for call in own[-MOST_CALLS:]), _message(error)])


def _is_in_library(filename: str) -> bool:
    path = PurePath(filename)
    return filename.startswith("<frozen") or _STANDARD_LIBRARY in path.parents or not _INSTALLED.isdisjoint(path.parts)


def _line(call: traceback.FrameSummary) -> str:
    """Without its folder, which is this machine's business."""
    place = "a cell" if _CELL.search(call.filename) else PurePath(call.filename).name
    inside = "" if call.name == "<module>" else f", in {call.name}"
    return f"{place}:{call.lineno}{inside}" + (f"\n    {call.line.strip()}" if call.line else "")


def _message(error: BaseException) -> str:
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    message = steady(error.msg if isinstance(error, SyntaxError) else str(error))
    return f"{name}: {message}" if message else name
