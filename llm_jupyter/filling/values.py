"""What a value becomes in a prompt."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from llm_jupyter.filling.faults import short_traceback
from llm_jupyter.filling.nested import CONTAINERS, Copying, as_python
from llm_jupyter.filling.pictures import picture
from llm_jupyter.filling.shown import Shown, count, is_a, sides
from llm_jupyter.filling.steady import steady
from llm_jupyter.filling.tables import table

ONE_LINE = 100
"""Characters of a list or dictionary that stand on one line."""


def show(value: Any) -> Shown:
    """The value as a prompt shows it. Raises whatever the value's own methods raise."""
    shown = _show(value)
    if shown.text.isascii():
        return shown
    sendable = shown.text.encode(errors="replace").decode()  # a file's name may hold half a character
    return msgspec.structs.replace(shown, text=sendable)


def _show(value: Any) -> Shown:
    if isinstance(value, str):
        return _text(str.__str__(value))  # of an enumeration's member the string, not the name
    if isinstance(value, bytes | bytearray | memoryview):
        size = count(memoryview(value).nbytes, "byte")
        return Shown(f"[{size}]", size)
    if isinstance(value, BaseException):
        return _text(short_traceback(value), is_block=True)
    if is_a(value, "numpy", "ndarray"):
        return _array(value)
    if isinstance(value, CONTAINERS):
        return _items(value)
    return table(value) or picture(value) or _text(_description(value))


def _text(text: str, *, is_block: bool = False) -> Shown:
    return Shown(text, count(len(text), "character"), is_block=is_block)


def _array(array: Any) -> Shown:
    """The middle of a long one is left out by numpy itself."""
    shape = sides(array.shape) or "scalar"
    with sys.modules["numpy"].printoptions(formatter={"object": as_python}):
        written = repr(array)
    return Shown(f"array {shape} of {array.dtype}:\n{written}", f"array {shape}", is_block=True)


def _description(value: Any) -> str:
    """A text of its own stays as it is; one that Python makes up may tell of the process."""
    kind: Any = type(value)
    return steady(str(value)) if kind.__str__ is object.__str__ else str(value)


def _items(value: Any) -> Shown:
    copying = Copying()
    copy = copying.copy(value)
    is_named = isinstance(value, tuple) and type(value) is not tuple
    text = repr(copy) if is_named else _json(copy)
    if not copying.is_partial:
        return _text(text)
    return Shown(text, f"{count(len(value), 'item')}, in part", is_partial=True)


def _json(value: Any) -> str:
    """Readable JSON, or what Python writes where JSON has no such value."""
    try:
        line = json.dumps(value, ensure_ascii=False)
        return line if len(line) <= ONE_LINE else json.dumps(value, ensure_ascii=False, indent=1)
    except (TypeError, ValueError):
        return repr(value)
