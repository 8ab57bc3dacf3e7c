"""What a value becomes in a prompt."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import msgspec

from llm_jupyter.filling.faults import short_traceback
from llm_jupyter.filling.pictures import picture
from llm_jupyter.filling.shown import Shown, count, is_a, sides
from llm_jupyter.filling.tables import table

ONE_LINE = 100
"""Characters of a list or dictionary that stand on one line."""

MOST_ITEMS = 10_000
"""Items that are written at all. To write millions, and to cut them afterwards, would take seconds."""


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
    if isinstance(value, list | dict) or type(value) is tuple:
        return _items(value)
    return table(value) or picture(value) or _text(str(value))


def _text(text: str, *, is_block: bool = False) -> Shown:
    return Shown(text, count(len(text), "character"), is_block=is_block)


def _array(array: Any) -> Shown:
    """The middle of a long one is left out by numpy itself."""
    shape = sides(array.shape) or "scalar"
    shown = f"array {shape} of {array.dtype}:\n{array!r}"
    return Shown(shown, f"array {shape}", is_block=True)


def _items(value: list[Any] | dict[Any, Any] | tuple[Any, ...]) -> Shown:
    if (items := len(value)) <= MOST_ITEMS:
        return _text(_json(value))
    first = dict(islice(value.items(), MOST_ITEMS)) if isinstance(value, dict) else value[:MOST_ITEMS]
    text = f"{_json(first)}\n[… {items - MOST_ITEMS:,} of {items:,} items left out …]"
    return Shown(text, f"{count(items, 'item')}, first {MOST_ITEMS:,}", is_partial=True)


def _json(value: Any) -> str:
    """Readable JSON, or what Python writes where JSON has no such value."""
    try:
        line = json.dumps(value, ensure_ascii=False)
        return line if len(line) <= ONE_LINE else json.dumps(value, ensure_ascii=False, indent=1)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
