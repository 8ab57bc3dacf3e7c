"""What Python writes of a thing changes with the process; what is asked shall not, for then no recording would hold."""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r' at 0x[0-9a-fA-F]+(?=>|, file "|; to |; dead>| \[)'  # as Python's own descriptions end: `<function f at 0x7f…>`
    r"|(?<= object) at [0-9a-f]{8,}(?=[,>])"  # as IPython writes them
)
"""Where an object lies in memory."""

_CELL_FILE = re.compile(r"(?<![^\s\"'<>])[^\s\"'<>]*ipykernel_\d+[/\\]\d+\.py")
"""Kernels name the code of a cell after their process.

It begins where such a path can begin, and nowhere within: a text without blanks would be read again from each character.
"""


def steady(text: str) -> str:
    """What Python wrote of a value, without what the next process would write differently.

    It takes the whole text, in linear time: cut before, half an address would stay at the end, and a note on the length
    would count what changes.
    """
    return _CELL_FILE.sub("a cell", _ADDRESS.sub("", text))
