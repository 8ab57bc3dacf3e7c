"""Texts of any length for a server to send, four bytes a token, always the same ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

BYTES_PER_TOKEN = 4
SENTENCE = (
    "the kernel keeps a small model near its notebook and every answer that comes back is read by somebody who waits "
    "for words rather than for figures so that what is shown first matters more than what is shown last"
)
WORDS = SENTENCE.split()


def tokens(name: str, count: int) -> list[str]:
    """The text of that name in `count` pieces."""
    text = whole(name, count)
    return [text[n : n + BYTES_PER_TOKEN] for n in range(0, len(text), BYTES_PER_TOKEN)]


def whole(name: str, count: int) -> str:
    """The text of that name, as long as `count` tokens."""
    size = count * BYTES_PER_TOKEN
    lines = TEXTS[name](random.Random(7))
    ending = "\n```" if name == "fence" else ""
    pieces: list[str] = []
    length = len(ending)
    while length < size:
        pieces.append(next(lines))
        length += len(pieces[-1])
    text = "".join(pieces)[: size - len(ending)]
    return text + ending


def _sentence(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(6, 18))).capitalize() + ". "


def _prose(chance: random.Random) -> Iterator[str]:
    while True:
        yield "".join(_sentence(chance) for _ in range(6)).rstrip() + "\n\n"


def _fence(chance: random.Random) -> Iterator[str]:
    yield "```python\n"
    while True:
        name, other = chance.choices(WORDS, k=2)
        yield f"def {name}_{chance.randint(1, 999)}({other}):\n    return {other} + {chance.randint(1, 999)}\n\n\n"


def _line(chance: random.Random) -> Iterator[str]:
    while True:
        yield _sentence(chance)


def _table(chance: random.Random) -> Iterator[str]:
    yield "| word | size | note |\n|---|---:|---|\n"
    while True:
        note = " ".join(chance.choices(WORDS, k=4))
        yield f"| {chance.choice(WORDS)} | {chance.randint(1, 99_999)} | {note} |\n"


TEXTS: dict[str, Callable[[random.Random], Iterator[str]]] = {
    "prose": _prose,  # paragraphs
    "fence": _fence,  # one block of code from end to end
    "line": _line,  # no line feed anywhere
    "table": _table,  # one table
}
