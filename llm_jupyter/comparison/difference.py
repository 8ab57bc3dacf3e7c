"""How two answers differ."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from llm_jupyter.comparison.words import TEXT_ALONE, escaped, visible

MOST_PIECES = 20_000
"""Words that are compared one by one; longer texts are compared by lines, or as they stand."""

SHOWN = 50_000
"""Characters of a difference that a page shows."""


class Piece(msgspec.Struct, frozen=True):
    """A stretch of text that both have (`=`), or only the first (`-`) or the second (`+`)."""

    kind: str
    text: str


class Difference(msgspec.Struct, frozen=True):
    """Two texts side by side: `a` and `b` say whose they are. It shows itself with what is not in both marked."""

    a: str
    b: str
    before: str
    after: str

    @property
    def is_empty(self) -> bool:
        """Whether the texts are the same."""
        return self.before == self.after

    @property
    def pieces(self) -> list[Piece]:
        """Both texts as one: all but the `+` are the first, all but the `-` the second."""
        return list(_pieces(_split(self.before), _split(self.after)))

    def __repr__(self) -> str:
        if self.is_empty:
            return f"{visible(self.a)} and {visible(self.b)} answered the same."
        before, after = (visible(text)[:SHOWN].splitlines() for text in (self.before, self.after))
        return "\n".join(difflib.unified_diff(before, after, visible(self.a), visible(self.b), lineterm=""))

    def html(self) -> str:
        """The second text with what the first has instead; every word of it is escaped."""
        shown, left = [], SHOWN
        for piece in self.pieces:
            text = escaped(piece.text[:left])
            left -= len(piece.text)
            shown.append(_TAGS[piece.kind].format(text))
            if left <= 0:
                shown.append(f"<em> … cut here: {SHOWN:,} characters are shown.</em>")
                break
        head = f"<small><del>{escaped(self.a)}</del> · <ins>{escaped(self.b)}</ins></small>"
        text = "".join(shown) if not self.is_empty else f"{''.join(shown)}<small>\n\nBoth answered the same.</small>"
        return f'<div {TEXT_ALONE}>{head}<div style="white-space:pre-wrap;overflow-wrap:anywhere">{text}</div></div>'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html()}


_TAGS = {"=": "{}", "-": "<del>{}</del>", "+": "<ins>{}</ins>"}


def _split(text: str) -> list[str]:
    """The text in pieces that are compared: words with the space behind them, where they are not too many."""
    for pattern in (r"\S+\s*|\s+", r"[^\n]*\n|[^\n]+"):
        if len(pieces := re.findall(pattern, text)) <= MOST_PIECES:
            return pieces
    return [text]


def _pieces(before: list[str], after: list[str]) -> Iterator[Piece]:
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after).get_opcodes():
        if kind == "equal":
            yield Piece("=", "".join(before[i:j]))
            continue
        if i < j:
            yield Piece("-", "".join(before[i:j]))
        if k < m:
            yield Piece("+", "".join(after[k:m]))
