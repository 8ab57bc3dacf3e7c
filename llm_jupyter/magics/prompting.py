"""From what was typed to what is asked: variables are filled in, and cells that ran before are added where that was said."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from llm_jupyter.filling import fill, filled_line
from llm_jupyter.magics.earlier_cells import cells_before
from llm_jupyter.magics.kernel import KernelServices
from llm_jupyter.store import Filled
from llm_jupyter.types import Message

CELLS_BUDGET = 2000
"""Tokens that earlier cells may take together."""

IPYTHONS = re.compile(r"exit|quit|get_ipython|open|_{1,3}|_i{1,3}|_[iod]h")
"""Names that IPython gives every notebook. Nobody means them in a prompt, as long as they are IPython's."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """What is asked. `notes` say below the answer what was done to what was typed; `values` is for the notebook's file."""

    message: Message
    template: str | None = None
    filled: tuple[Filled, ...] = ()
    notes: list[str] = field(default_factory=list)


def prompted(kernel: KernelServices, text: str, values: Mapping[str, Any]) -> Prompted:
    """The prompt of a magic, made ready by its options."""
    notes: list[str] = []
    images: tuple[Any, ...] = ()
    filled: tuple[Filled, ...] = ()
    whole = text
    if not values.get("raw"):
        result = fill(text, _names(kernel))
        whole, images = result.text, result.images
        filled = tuple(Filled(value.name, value.size) for value in result.filled)
        notes = [line for line in (filled_line(result.filled), *result.hints) if line]
    if (which := values.get("context", "none")) not in ("none", "0"):
        cells = cells_before(kernel, which, CELLS_BUDGET)
        whole = cells.text() + whole
        filled += tuple(Filled(f"cell {number}", cell.size) for number, cell in enumerate(cells.cells, 1))
        notes.append(cells.line())
    return Prompted(Message.user(whole, images), text if whole != text else None, filled, notes)


def _names(kernel: KernelServices) -> dict[str, Any]:
    """The person's variables, those of the function that asks before those of the notebook."""
    everywhere, hidden = kernel.shell.user_ns, kernel.shell.user_ns_hidden
    names = {
        name: value for name, value in dict(everywhere).items()
        if not (IPYTHONS.fullmatch(name) and hidden.get(name) is value)
    }  # fmt: skip
    local = _callers_names()
    return names if local is everywhere else {**names, **local}


def _callers_names() -> Mapping[str, Any]:
    """The variables where a magic is called. IPython itself hands them to line magics alone, so they are looked for."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and not _is_ipythons(frame):
        frame = frame.f_back
    while frame is not None and _is_ipythons(frame):
        frame = frame.f_back
    return frame.f_locals if frame is not None else {}


def _is_ipythons(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__") == InteractiveShell.__module__
