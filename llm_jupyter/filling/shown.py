"""A value as a prompt shows it, and how to know one of a library that may not be there."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from llm_jupyter.types import Image


class Shown(msgspec.Struct, frozen=True):
    """A value as text or as an image; `size` says in words how much of the value that is.

    A block stands on lines of its own.
    """

    text: str
    size: str
    image: Image | None = None
    is_partial: bool = False
    is_block: bool = False


def is_a(value: Any, module: str, *classes: str) -> bool:
    """Whether it is of a library's class. Nothing is imported: before the library is, there are no values of it."""
    loaded = sys.modules.get(module)
    found = (getattr(loaded, name, None) for name in classes)
    return any(isinstance(kind, type) and isinstance(value, kind) for kind in found)


def count(number: int, noun: str) -> str:
    """How many there are, in words: `1 row`, `1,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def sides(shape: tuple[int, ...]) -> str:
    """The lengths of a thing's sides: `640 x 480`."""
    return " x ".join(f"{side:,}" for side in shape)
